//! The soft-label loss of knowledge distillation.

use crate::cross_entropy::{log_softmax, log_sum_exp};
use crate::elementary::exp;
use crate::softmax::softmax_rows;
use crate::storage::{cpu_slice, is_fused, rows_per_task, slice, tensor, transform};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// T² · mean over rows of KL(softmax(teacher / T) ‖ softmax(student / T)), a scalar (Hinton, Vinyals & Dean 2015,
/// section 2; T² keeps the size of the gradient when T changes). 0 for an empty batch.
///
/// `student` and `teacher`: logits `[rows, classes]`. The teacher gets no gradient, and may be of any device.
///
/// # Errors
/// If the shapes differ or the temperature is not positive and finite.
pub fn distillation_loss(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    let (_, classes) = student.dims2()?;
    if teacher.dims() != student.dims() || !(temperature > 0.0 && temperature.is_finite()) {
        bail!(
            "distillation_loss of {:?} from {:?} at temperature {temperature}",
            student.dims(),
            teacher.dims()
        )
    }
    let teacher = teacher.detach().to_device(student.device())?;
    if !is_fused(student) {
        return reference(student, &teacher, temperature);
    }
    let op = Distillation {
        classes,
        temperature: temperature as f32,
    };
    student.contiguous()?.apply_op2(&teacher.contiguous()?, op)
}

fn reference(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    let student = log_softmax(&(student / temperature)?)?;
    let teacher = log_softmax(&(teacher / temperature)?)?;
    let divergence = (teacher.exp()? * (teacher - student)?)?.sum(1)?.mean_all()?;
    divergence * (temperature * temperature)
}

struct Distillation {
    classes: usize,
    temperature: f32,
}

impl Distillation {
    fn divergence(&self, student: &[f32], teacher: &[f32]) -> f64 {
        let soften = |row: &[f32]| -> Vec<f32> { row.iter().map(|v| v / self.temperature).collect() };
        let (student, teacher) = (soften(student), soften(teacher));
        let (student_total, teacher_total) = (log_sum_exp(&student), log_sum_exp(&teacher));
        let terms = student.iter().zip(&teacher).map(|(s, t)| {
            let log_probability = t - teacher_total;
            f64::from(exp(log_probability)) * f64::from(log_probability - (s - student_total))
        });
        terms.sum()
    }
}

impl CustomOp2 for Distillation {
    fn name(&self) -> &'static str {
        "distillation_loss"
    }

    fn cpu_fwd(
        &self,
        student: &CpuStorage,
        student_layout: &Layout,
        teacher: &CpuStorage,
        teacher_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let classes = self.classes.max(1);
        let student = cpu_slice(student, student_layout)?.chunks_exact(classes);
        let teacher = cpu_slice(teacher, teacher_layout)?.chunks_exact(classes);
        let rows = student.len().max(1);
        let sum: f64 = student
            .zip(teacher)
            .map(|(student, teacher)| self.divergence(student, teacher))
            .sum();
        let loss = sum / rows as f64 * f64::from(self.temperature) * f64::from(self.temperature);
        Ok((CpuStorage::F32(vec![loss as f32]), Shape::from(())))
    }

    /// T / rows · (softmax(student / T) − softmax(teacher / T)).
    fn bwd(
        &self,
        student: &Tensor,
        teacher: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (s_storage, s_layout) = student.storage_and_layout();
        let (t_storage, t_layout) = teacher.storage_and_layout();
        let teacher = slice(&t_storage, t_layout)?;
        let rows = student.dim(0)?.max(1);
        let factor = gradient.to_scalar::<f32>()? * self.temperature / rows as f32;
        let chunk = rows_per_task(self.classes) * self.classes.max(1);
        let values = transform(slice(&s_storage, s_layout)?, chunk, |offset, student| {
            let mut teacher = teacher[offset..offset + student.len()].to_vec();
            for rows in [&mut *student, &mut teacher] {
                rows.iter_mut().for_each(|v| *v /= self.temperature);
                softmax_rows(rows, self.classes);
            }
            for (s, t) in student.iter_mut().zip(&teacher) {
                *s = (*s - t) * factor;
            }
        });
        Ok((Some(tensor(values, student.shape())?), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Differences, SIZES, check, same_bits_everywhere, sample};

    #[test]
    fn gradients() -> Result<()> {
        for classes in SIZES {
            let (student, teacher) = (sample(&[4, classes], 1), sample(&[4, classes], 2));
            for temperature in [1.0, 4.0] {
                check(
                    &[&student],
                    |t| distillation_loss(t[0], &teacher, temperature),
                    |t| reference(t[0], &teacher.to_dtype(t[0].dtype())?, temperature),
                    Differences::Central,
                    1e-5,
                )?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_perfect_student_has_no_loss_and_the_teacher_no_gradient() -> Result<()> {
        let logits = sample(&[5, 7], 1);
        assert!(distillation_loss(&logits, &logits, 2.0)?.to_scalar::<f32>()?.abs() < 1e-6);
        let student = candle_core::Var::from_tensor(&logits)?;
        let teacher = candle_core::Var::from_tensor(&sample(&[5, 7], 2))?;
        let gradients = distillation_loss(&student, &teacher, 2.0)?.backward()?;
        assert!(gradients.get(&teacher).is_none() && gradients.get(&student).is_some());
        Ok(())
    }

    #[test]
    fn same_bits_for_all_threads_and_widths() -> Result<()> {
        let teacher = sample(&[900, 17], 2);
        same_bits_everywhere(&[&sample(&[900, 17], 1)], |t| distillation_loss(t[0], &teacher, 3.0))
    }

    #[test]
    fn impossible_arguments_are_errors() {
        let (student, teacher) = (sample(&[2, 3], 1), sample(&[2, 3], 2));
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                distillation_loss(&student, &teacher, temperature).is_err(),
                "{temperature}"
            );
        }
        assert!(distillation_loss(&student, &sample(&[2, 4], 2), 1.0).is_err());
    }
}
