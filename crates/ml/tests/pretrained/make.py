"""Writes bert/: a small BERT with a classifier as Hugging Face's transformers saves it, and what transformers makes of a few
texts with it. Its weights are random, and wide enough that every part of the model moves the logits.

    pip install torch transformers
    python make.py
"""

import json
import pathlib

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

FOLDER = pathlib.Path(__file__).parent / "bert"
WORDS = "the a film plot actor was is not very good bad dull bright and but so un ##ed ##ing ##ly ! . ,".split()
TEXTS = ["The film was good.", "a dull plot, but the actor is not bad!", "very very unplot", "so brightly acting"]


def main():
    torch.manual_seed(1)
    FOLDER.mkdir(exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocab = FOLDER / "vocab.txt"
    vocab.write_text("".join(f"{token}\n" for token in vocabulary))
    tokenizer = BertTokenizerFast(vocab={token: i for i, token in enumerate(vocabulary)}, do_lower_case=True)
    config = BertConfig(
        vocab_size=len(vocabulary) + 3,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
        layer_norm_eps=1e-5,
        initializer_range=0.3,
        id2label={0: "positive", 1: "negative", 2: "neither"},
        label2id={"positive": 0, "negative": 1, "neither": 2},
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(FOLDER)
    tokenizer.save_pretrained(FOLDER)
    expected = []
    for text in TEXTS:
        encoded = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits = model(**encoded).logits[0].double().tolist()
        expected.append({"text": text, "ids": encoded["input_ids"][0].tolist(), "logits": logits})
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
