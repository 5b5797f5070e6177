"""Writes bert/ and distilbert/: a small BERT and DistilBERT with a classifier as Hugging Face's transformers saves them, and
what transformers makes of a few texts with them. Their weights are random, and wide enough that every part of a model moves the
logits.

    pip install torch transformers
    python make.py
"""

import json
import pathlib

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

HERE = pathlib.Path(__file__).parent
WORDS = "the a film plot actor was is not very good bad dull bright and but so un ##ed ##ing ##ly ! . ,".split()
TEXTS = ["The film was good.", "a dull plot, but the actor is not bad!", "very very unplot", "so brightly acting"]


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
COMMON = {
    "vocab_size": len(VOCABULARY) + 3,
    "max_position_embeddings": 20,
    "initializer_range": 0.3,
    "id2label": {0: "positive", 1: "negative", 2: "neither"},
    "label2id": {"positive": 0, "negative": 1, "neither": 2},
}


def bert():
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        layer_norm_eps=1e-5,
        **COMMON,
    )
    return BertForSequenceClassification(config)


def distilbert():
    config = DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, **COMMON)
    return DistilBertForSequenceClassification(config)


def write(folder, model):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY))
    tokenizer = BertTokenizerFast(vocab={token: i for i, token in enumerate(VOCABULARY)}, do_lower_case=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    expected = []
    for text in TEXTS:
        encoded = tokenizer(text, return_tensors="pt")
        if folder.name == "distilbert":
            encoded.pop("token_type_ids", None)
        with torch.no_grad():
            logits = model(**encoded).logits[0].double().tolist()
        expected.append({"text": text, "ids": encoded["input_ids"][0].tolist(), "logits": logits})
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


torch.manual_seed(1)
write(HERE / "bert", bert().eval())
torch.manual_seed(2)
write(HERE / "distilbert", distilbert().eval())
