//! The architectures that pretrained weights may be of: all are BERTs here, under other names.

/// An architecture in Hugging Face's transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Devlin et al. 2019.
    Bert,
    /// Sanh et al. 2019: a BERT without segments, whose pooler, part of its classifier, ends in a rectifier.
    DistilBert,
}

/// The parts of a layer of DistilBERT, and what they are called in a BERT.
const PARTS_OF_LAYER: [(&str, &str); 8] = [
    ("attention.q_lin.", "attention.self.query."),
    ("attention.k_lin.", "attention.self.key."),
    ("attention.v_lin.", "attention.self.value."),
    ("attention.out_lin.", "attention.output.dense."),
    ("sa_layer_norm.", "attention.output.LayerNorm."),
    ("ffn.lin1.", "intermediate.dense."),
    ("ffn.lin2.", "output.dense."),
    ("output_layer_norm.", "output.LayerNorm."),
];

impl Family {
    /// All there are, by `model_type`.
    pub const ALL: [(&str, Self); 2] = [("bert", Self::Bert), ("distilbert", Self::DistilBert)];

    /// The name that a layer here has for the tensor `name`; nothing for what a classifier does not need: the heads of
    /// pretraining, and the numbers of positions. A name that is in no use comes back as it is.
    pub fn known_as(self, name: &str) -> Option<String> {
        match self {
            Self::Bert => of_bert(name),
            Self::DistilBert => of_distilbert(name),
        }
    }
}

fn of_bert(name: &str) -> Option<String> {
    if name.starts_with("cls.") || name.ends_with("embeddings.position_ids") {
        return None;
    }
    // An encoder by itself has no name in front.
    let is_bare = ["embeddings.", "encoder.", "pooler."]
        .iter()
        .any(|part| name.starts_with(part));
    let name = if is_bare {
        format!("bert.{name}")
    } else {
        name.to_owned()
    };
    // TensorFlow's names of a norm's two tensors, in files that were converted from it.
    for (theirs, ours) in [
        ("LayerNorm.gamma", "LayerNorm.weight"),
        ("LayerNorm.beta", "LayerNorm.bias"),
    ] {
        if let Some(path) = name.strip_suffix(theirs) {
            return Some(format!("{path}{ours}"));
        }
    }
    Some(name)
}

fn of_distilbert(name: &str) -> Option<String> {
    if name.starts_with("vocab_") || name.ends_with("embeddings.position_ids") {
        return None;
    }
    if let Some(part) = name.strip_prefix("pre_classifier.") {
        return Some(format!("bert.pooler.dense.{part}"));
    }
    let inner = name.strip_prefix("distilbert.").unwrap_or(name);
    if inner.starts_with("embeddings.") {
        return Some(format!("bert.{inner}"));
    }
    let layer = inner
        .strip_prefix("transformer.layer.")
        .and_then(|rest| rest.split_once('.'));
    let known = layer.and_then(|(index, part)| {
        let (theirs, ours) = PARTS_OF_LAYER.iter().find(|(theirs, _)| part.starts_with(theirs))?;
        Some(format!("bert.encoder.layer.{index}.{ours}{}", &part[theirs.len()..]))
    });
    Some(known.unwrap_or_else(|| name.to_owned()))
}
