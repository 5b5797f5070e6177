//! Rows of a table by their number. The gradient of a row is the sum over its positions in their order, as on the CPU.

use super::{buffer, launch, not_on_cpu, output, rows, view, width_of};
use crate::gradients::hand_over;
use candle_core::{CudaStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// The rows `ids`, each one that the table has, as `shape`.
pub(crate) fn embedding(table: &Tensor, ids: Vec<u32>, shape: Shape) -> Result<Tensor> {
    table.contiguous()?.apply_op1(Embedding { ids, shape })
}

struct Embedding {
    ids: Vec<u32>,
    shape: Shape,
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, table: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = &table.device;
        let mut y = buffer(device, self.shape.elem_count())?;
        if self.shape.elem_count() > 0 {
            let (_, width) = layout.shape().dims2()?;
            let (width, ids) = (width_of(width)?, device.clone_htod(&self.ids)?);
            let (table, config) = (view(table, layout)?, rows(self.ids.len() as u64, width)?);
            // SAFETY: every id is that of a row of `width` elements, and `y` has a row for each.
            unsafe { launch!(device, "embedding", config, &table, &ids, &mut y, &width) };
        }
        Ok(output(y, device, self.shape.clone()))
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.detach().contiguous()?;
        hand_over(table, scatter(&gradient, &self.ids, table.dims2()?)?)
    }
}

/// The gradient of a table `[rows, width]`, from a row of `gradient`, which is contiguous, for each id.
pub(super) fn scatter(gradient: &Tensor, ids: &[u32], (rows, width): (usize, usize)) -> Result<Tensor> {
    gradient.apply_op1_no_bwd(&Scattered { ids, rows, width })
}

/// Of a row for each id: the table's gradient.
struct Scattered<'a> {
    ids: &'a [u32],
    rows: usize,
    width: usize,
}

/// Which rows there are, where the places of each begin, one more than which is where they end, and those places.
struct Places {
    numbers: Vec<u32>,
    starts: Vec<u32>,
    positions: Vec<u32>,
}

impl Places {
    fn of(ids: &[u32]) -> Self {
        let mut order: Vec<(u32, u32)> = ids.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let mut places = Self {
            numbers: Vec::new(),
            starts: Vec::new(),
            positions: order.iter().map(|(_, position)| *position).collect(),
        };
        for (start, (id, _)) in (0u32..).zip(&order) {
            if places.numbers.last() != Some(id) {
                places.numbers.push(*id);
                places.starts.push(start);
            }
        }
        places.starts.push(order.len() as u32);
        places
    }
}

impl CustomOp1 for Scattered<'_> {
    fn name(&self) -> &'static str {
        "embedding_gradient"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, g: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = &g.device;
        let mut out = device.alloc_zeros::<f32>(self.rows * self.width)?;
        if layout.shape().elem_count() > 0 {
            let places = Places::of(self.ids);
            let config = rows(places.numbers.len() as u64, width_of(self.width)?)?;
            let [numbers, starts, positions] =
                [places.numbers, places.starts, places.positions].map(|values| device.clone_htod(&values));
            let (numbers, starts, positions) = (numbers?, starts?, positions?);
            let (g, width) = (view(g, layout)?, width_of(self.width)?);
            // SAFETY: `g` has a row of `width` elements for every position, `out` for every number, each of which one block
            // has, and where the positions of the last one end is told as well.
            unsafe {
                launch!(
                    device,
                    "embedding_gradient",
                    config,
                    &g,
                    &numbers,
                    &starts,
                    &positions,
                    &mut out,
                    &width
                );
            }
        }
        Ok(output(out, device, (self.rows, self.width)))
    }
}
