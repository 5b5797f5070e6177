//! Groups of coupled channels: what must be removed together for a model to keep its shape.
//!
//! A group is a set of `size` units (attention heads, neurons, channels). Removing unit `i` removes, from each member
//! tensor, the `block` consecutive indices from `i * block` along `dim`. The vocabulary is that of Fang et al. 2023
//! (DepGraph); here each architecture declares its groups rather than having them traced.

use serde::{Deserialize, Serialize};

/// What the units of a group are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Attention heads (Michel et al. 2019).
    Heads,
    /// Hidden neurons of a feed-forward layer.
    Neurons,
    /// Output channels of a convolution.
    Channels,
}

/// One tensor's share in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The parameter's name.
    pub parameter: String,
    /// The dimension that the units lie along.
    pub dim: usize,
    /// Consecutive indices that one unit takes.
    pub block: usize,
    /// Whether its elements are weights, which say how important a unit is. Statistics only go with it.
    pub weighs: bool,
}

impl Member {
    /// Weights.
    pub fn new(parameter: impl Into<String>, dim: usize, block: usize) -> Self {
        Self {
            parameter: parameter.into(),
            dim,
            block,
            weighs: true,
        }
    }

    /// Statistics of each unit, `[units]`.
    pub fn statistic(parameter: impl Into<String>) -> Self {
        Self {
            weighs: false,
            ..Self::new(parameter, 0, 1)
        }
    }
}

/// Coupled channels, see the module's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Where it is, for people: `bert.encoder.layer.0.attention`.
    pub name: String,
    /// What is removed.
    pub unit: Unit,
    /// Units there are now.
    pub size: usize,
    /// The tensors that shrink with it.
    pub members: Vec<Member>,
}
