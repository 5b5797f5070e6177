//! Mean cross entropy of class labels, in its log-sum-exp form, with label smoothing.

use crate::elementary;
use crate::isa::multiversion;
use crate::lanes;
use crate::reduction;
use crate::softmax;
use crate::storage::{cpu_slice, is_fused, rows_per_task, slice, tensor, transform};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// The mean over rows of log Σ exp(logits) − logits · target, where the target gives `label_smoothing` evenly to all
/// classes and the rest to the label (Szegedy et al. 2016, section 7). A scalar; 0 for an empty batch.
///
/// `logits: [rows, classes]`, `labels: u32 [rows]`, of any device.
///
/// # Errors
/// If the shapes do not fit, a label is not below `classes`, or the smoothing is not in [0, 1].
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, label_smoothing: f64) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    if labels.dims() != [rows] || !(0.0..=1.0).contains(&label_smoothing) {
        bail!(
            "cross_entropy of {:?} with labels {:?}, smoothing {label_smoothing}",
            logits.dims(),
            labels.dims()
        )
    }
    let values = labels.to_vec1::<u32>()?;
    if let Some(label) = values.iter().find(|&&label| label as usize >= classes) {
        bail!("label {label} is outside of {classes} classes")
    }
    if !is_fused(logits) {
        return reference(logits, &labels.to_device(logits.device())?, label_smoothing);
    }
    logits.contiguous()?.apply_op1(CrossEntropy {
        labels: values,
        classes,
        smoothing: label_smoothing as f32,
    })
}

fn reference(logits: &Tensor, labels: &Tensor, label_smoothing: f64) -> Result<Tensor> {
    let log_probabilities = log_softmax(logits)?;
    let picked = log_probabilities.gather(&labels.unsqueeze(1)?, 1)?.mean_all()?;
    let even = log_probabilities.mean_all()?;
    (picked * (label_smoothing - 1.0))? - (even * label_smoothing)?
}

/// The logarithm of the softmax over the last dimension, of plain candle ops.
pub(crate) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

multiversion! {
    /// log Σ exp(x).
    pub(crate) fn log_sum_exp(x: &[f32]) -> f32 {
        let largest = lanes::max(x);
        largest + elementary::ln(lanes::sum(x, |v| elementary::exp(v - largest)))
    }
}

struct CrossEntropy {
    labels: Vec<u32>,
    classes: usize,
    smoothing: f32,
}

impl CrossEntropy {
    fn row_loss(&self, row: &[f32], label: u32) -> f32 {
        let total = log_sum_exp(row);
        let even = total - reduction::sum(row) / self.classes as f32;
        (1.0 - self.smoothing) * (total - row[label as usize]) + self.smoothing * even
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let classes = self.classes.max(1);
        let block = rows_per_task(classes);
        let blocks = cpu_slice(storage, layout)?
            .par_chunks(block * classes)
            .zip(self.labels.par_chunks(block));
        let sums: Vec<f64> = blocks
            .map(|(rows, labels)| {
                let rows = rows.chunks_exact(classes).zip(labels);
                rows.map(|(row, &label)| f64::from(self.row_loss(row, label))).sum()
            })
            .collect();
        let mean = sums.iter().sum::<f64>() / self.labels.len().max(1) as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let factor = gradient.to_scalar::<f32>()? / self.labels.len().max(1) as f32;
        let even = self.smoothing / self.classes as f32;
        let chunk = rows_per_task(self.classes) * self.classes;
        let (x, layout) = logits.storage_and_layout();
        let values = transform(slice(&x, layout)?, chunk.max(1), |offset, rows| {
            softmax::softmax_rows(rows, self.classes);
            let labels = &self.labels[offset / self.classes..];
            for (row, &label) in rows.chunks_exact_mut(self.classes).zip(labels) {
                row[label as usize] -= 1.0 - self.smoothing;
                row.iter_mut().for_each(|p| *p = (*p - even) * factor);
            }
        });
        tensor(values, logits.shape()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, SIZES, check, same_bits_everywhere, sample};
    use candle_core::Device;

    fn labels(rows: usize, classes: usize) -> Result<Tensor> {
        Tensor::new(
            (0..rows).map(|i| (i * 5 % classes) as u32).collect::<Vec<_>>(),
            &Device::Cpu,
        )
    }

    #[test]
    fn gradients() -> Result<()> {
        for classes in SIZES {
            let (logits, labels) = (sample(&[4, classes], 1), labels(4, classes)?);
            for smoothing in [0.0, 0.1, 1.0] {
                check(
                    &[&logits],
                    |t| cross_entropy(t[0], &labels, smoothing),
                    |t| reference(t[0], &labels, smoothing),
                    Differences::Central,
                    3e-6,
                )?;
            }
        }
        Ok(())
    }

    #[test]
    fn closed_forms() -> Result<()> {
        let zeros = Tensor::zeros((3, 8), candle_core::DType::F32, &Device::Cpu)?;
        let loss = cross_entropy(&zeros, &labels(3, 8)?, 0.2)?.to_scalar::<f32>()?;
        assert!((loss - 8f32.ln()).abs() < 1e-6, "{loss}");
        let certain = Tensor::new(&[[1000f32, 0.0], [0.0, 1000.0]], &Device::Cpu)?;
        let wrong = Tensor::new(&[1u32, 0], &Device::Cpu)?;
        assert_eq!(cross_entropy(&certain, &wrong, 0.0)?.to_scalar::<f32>()?, 1000.0);
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let labels = labels(2000, 10)?;
        same_bits_everywhere(&[&sample(&[2000, 10], 1)], |t| cross_entropy(t[0], &labels, 0.1))
    }

    #[test]
    fn a_label_outside_is_an_error_and_an_empty_batch_is_zero() -> Result<()> {
        let wrong = Tensor::new(&[0u32, 3], &Device::Cpu)?;
        let error = cross_entropy(&sample(&[2, 3], 1), &wrong, 0.0)
            .expect_err("3 is outside")
            .to_string();
        assert!(error.contains("label 3") && error.contains("3 classes"), "{error}");
        let none = Tensor::zeros(0, candle_core::DType::U32, &Device::Cpu)?;
        assert_eq!(cross_entropy(&sample(&[0, 3], 1), &none, 0.0)?.to_scalar::<f32>()?, 0.0);
        Ok(())
    }
}
