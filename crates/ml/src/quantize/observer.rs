//! Observers: what range a layer's input takes, and the scale and zero point that follow from it.
//!
//! Uniform asymmetric 8-bit activations (Jacob et al. 2018, section 2.1). The range always contains zero, so that zero
//! (padding, a rectifier's floor) is represented exactly.

use crate::error::Result;
use candle_core::Tensor;
use orchestrate_kernels::{ActivationQuantizer, min_max};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

/// How a range is estimated from the batches seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "observer")]
pub enum ObserverKind {
    /// The smallest and largest value of all batches.
    MinMax,
    /// Exponential moving average of each batch's extremes (Jacob et al. 2018, section 3.1).
    MovingAverage,
    /// Mean over the batches of the values that leave this per cent of a batch inside, in equal tails.
    Percentile {
        /// In (50, 100].
        percentile: f64,
    },
}

/// What a forward pass does with the ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// Look, and let the values that are looked at pass in f32: calibration.
    Calibrate,
    /// Look, and quantize with what was seen so far: the first part of quantization-aware training.
    Track,
    /// Quantize with fixed ranges: the rest of it, and evaluation.
    Fixed,
}

/// Weight of the past in a moving average.
const MOMENTUM: f32 = 0.95;

#[derive(Debug, Clone, Copy)]
enum State {
    Unseen,
    Seen { low: f32, high: f32, batches: u32 },
    Fixed(ActivationQuantizer),
}

/// The range of one layer's input.
#[derive(Debug)]
pub struct Observer {
    kind: ObserverKind,
    state: Mutex<State>,
}

impl Observer {
    /// An observer that has seen nothing.
    pub fn new(kind: ObserverKind) -> Self {
        Self {
            kind,
            state: Mutex::new(State::Unseen),
        }
    }

    /// An observer with a final range.
    pub fn fixed(quantizer: ActivationQuantizer) -> Self {
        Self {
            kind: ObserverKind::MinMax,
            state: Mutex::new(State::Fixed(quantizer)),
        }
    }

    /// Takes a batch into account. A fixed observer and an empty batch change nothing.
    ///
    /// # Errors
    /// If the tensor cannot be read.
    pub fn observe(&self, x: &Tensor) -> Result<()> {
        let mut state = self.state.lock().expect("no panic while an observer is locked");
        if matches!(*state, State::Fixed(_)) || x.elem_count() == 0 {
            return Ok(());
        }
        let (low, high) = match self.kind {
            ObserverKind::MinMax | ObserverKind::MovingAverage => min_max(x)?,
            ObserverKind::Percentile { percentile } => tails(x, percentile)?,
        };
        *state = match *state {
            State::Unseen | State::Fixed(_) => State::Seen { low, high, batches: 1 },
            State::Seen {
                low: l,
                high: h,
                batches,
            } => {
                let (low, high) = match self.kind {
                    ObserverKind::MinMax => (l.min(low), h.max(high)),
                    ObserverKind::MovingAverage => (
                        MOMENTUM * l + (1.0 - MOMENTUM) * low,
                        MOMENTUM * h + (1.0 - MOMENTUM) * high,
                    ),
                    ObserverKind::Percentile { .. } => {
                        let n = batches as f32;
                        ((l * n + low) / (n + 1.0), (h * n + high) / (n + 1.0))
                    }
                };
                State::Seen {
                    low,
                    high,
                    batches: batches + 1,
                }
            }
        };
        Ok(())
    }

    /// Lowest and highest value and number of batches, if it is still looking and has seen any.
    pub(crate) fn seen(&self) -> Option<[f64; 3]> {
        match *self.state.lock().expect("no panic while an observer is locked") {
            State::Unseen | State::Fixed(_) => None,
            State::Seen { low, high, batches } => Some([low.into(), high.into(), batches.into()]),
        }
    }

    /// Goes on from what [`Observer::seen`] told. A fixed observer stays as it is.
    pub(crate) fn resume(&self, [low, high, batches]: [f64; 3]) {
        let mut state = self.state.lock().expect("no panic while an observer is locked");
        if !matches!(*state, State::Fixed(_)) {
            *state = State::Seen {
                low: low as f32,
                high: high as f32,
                batches: batches as u32,
            };
        }
    }

    /// The quantizer for the range seen so far; `None` if nothing was seen.
    pub fn quantizer(&self) -> Option<ActivationQuantizer> {
        match *self.state.lock().expect("no panic while an observer is locked") {
            State::Unseen => None,
            State::Seen { low, high, .. } => Some(quantizer_of_range(low, high)),
            State::Fixed(quantizer) => Some(quantizer),
        }
    }
}

/// Scale and zero point that map `[low, high]`, widened to contain 0, onto 0..=255.
pub fn quantizer_of_range(low: f32, high: f32) -> ActivationQuantizer {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let span = high - low;
    if span <= f32::MIN_POSITIVE * 255.0 {
        return ActivationQuantizer {
            scale: 1.0,
            zero_point: 0,
        };
    }
    let scale = span / 255.0;
    ActivationQuantizer {
        scale,
        zero_point: (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8,
    }
}

fn tails(x: &Tensor, percentile: f64) -> Result<(f32, f32)> {
    let mut values = x.flatten_all()?.to_vec1::<f32>()?;
    let outside = ((100.0 - percentile) / 200.0 * values.len() as f64) as usize;
    let last = values.len() - 1;
    let (_, low, _) = values.select_nth_unstable_by(outside.min(last), f32::total_cmp);
    let low = *low;
    let (_, high, _) = values.select_nth_unstable_by(last - outside.min(last), f32::total_cmp);
    Ok((low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, values.len(), &Device::Cpu).expect("a small tensor")
    }

    #[test]
    fn zero_is_exact_in_every_range() {
        for (low, high) in [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0), (-1e-3, 700.0)] {
            let q = quantizer_of_range(low, high);
            let zero = (0.0f32 / q.scale).round_ties_even() + f32::from(q.zero_point);
            assert_eq!((zero - f32::from(q.zero_point)) * q.scale, 0.0);
            assert!(q.scale > 0.0);
        }
        let q = quantizer_of_range(-1.0, 1.55);
        assert_eq!(q.zero_point, 100);
    }

    #[test]
    fn each_kind_follows_its_definition() {
        let batches = [tensor(&[-1.0, 0.0, 1.0]), tensor(&[-3.0, 0.0, 2.0])];
        let range = |kind| {
            let observer = Observer::new(kind);
            for batch in &batches {
                observer.observe(batch).expect("observed");
            }
            match *observer.state.lock().expect("unlocked") {
                State::Seen { low, high, .. } => (low, high),
                State::Unseen | State::Fixed(_) => unreachable!("two batches were seen"),
            }
        };
        assert_eq!(range(ObserverKind::MinMax), (-3.0, 2.0));
        assert_eq!(range(ObserverKind::Percentile { percentile: 100.0 }), (-2.0, 1.5));
        let (low, high) = range(ObserverKind::MovingAverage);
        assert!((low + 1.1).abs() < 1e-6 && (high - 1.05).abs() < 1e-6, "{low} {high}");
    }

    #[test]
    fn a_percentile_ignores_outliers() {
        let mut values: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.0).collect();
        values[7] = 1e6;
        let (low, high) = tails(&tensor(&values), 99.0).expect("a range");
        assert!(low <= 0.01 && high < 1.0, "{low} {high}");
    }

    #[test]
    fn a_fixed_observer_does_not_move() {
        let observer = Observer::fixed(ActivationQuantizer {
            scale: 0.5,
            zero_point: 3,
        });
        observer.observe(&tensor(&[100.0])).expect("observed");
        let q = observer.quantizer().expect("fixed");
        assert_eq!((q.scale, q.zero_point), (0.5, 3));
    }
}
