//! An op made of other ops, with a backward pass of its own: what candle knows of it is its input, its output and that pass.
//!
//! candle adds every gradient to zeros that it allocates first, which for a block happens once, not at every link. Where nothing
//! is differentiated, no block is made.

use super::{buffer, elsewhere, not_on_cpu};
use crate::affine::Kept;
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, InplaceOp1, Layout, Result, Shape, Tensor, bail};
use std::sync::Mutex;

/// `output`, computed from `x` by ops that nothing differentiates; `backward` makes the gradient of `x` of that of the output.
pub(super) fn block<B>(x: &Tensor, output: Tensor, backward: B) -> Result<Tensor>
where
    B: FnOnce(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if !x.track_op() {
        return Ok(output);
    }
    x.apply_op1(Block::new(output, backward))
}

/// As [`block`], of two inputs.
pub(super) fn block2<B>(x: &Tensor, y: &Tensor, output: Tensor, backward: B) -> Result<Tensor>
where
    B: FnOnce(&Tensor) -> Result<[Tensor; 2]> + Send + Sync + 'static,
{
    if !x.track_op() && !y.track_op() {
        return Ok(output);
    }
    x.apply_op2(y, Block::new(output, backward))
}

struct Block<B> {
    output: Kept<Tensor>,
    /// Taken when it runs, with the activations that it holds.
    backward: Kept<B>,
}

impl<B> Block<B> {
    fn new(output: Tensor, backward: B) -> Self {
        let block = Self {
            output: Kept::nothing(),
            backward: Kept::nothing(),
        };
        block.output.put(output);
        block.backward.put(backward);
        block
    }

    fn forward(&self) -> Result<(CudaStorage, Shape)> {
        let output = self.output.take()?.detach();
        let shape = output.shape().clone();
        Ok((storage_of_whole(output)?, shape))
    }
}

impl<B: FnOnce(&Tensor) -> Result<Tensor> + Send + Sync> CustomOp1 for Block<B> {
    fn name(&self) -> &'static str {
        "block"
    }

    not_on_cpu!(1);

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let backward = self.backward.take()?;
        backward(&gradient.detach().contiguous()?).map(Some)
    }
}

impl<B: FnOnce(&Tensor) -> Result<[Tensor; 2]> + Send + Sync> CustomOp2 for Block<B> {
    fn name(&self) -> &'static str {
        "block"
    }

    not_on_cpu!(2);

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let backward = self.backward.take()?;
        let [of_x, of_y] = backward(&gradient.detach().contiguous()?)?;
        Ok((Some(of_x), Some(of_y)))
    }
}

/// The storage of a tensor that has all of it, in order, taken out of it: the tensor is not to be read any more.
fn storage_of_whole(tensor: Tensor) -> Result<CudaStorage> {
    let taken = Taken(Mutex::new(None));
    tensor.inplace_op1(&taken)?;
    match taken.0.into_inner() {
        Ok(Some(storage)) => Ok(storage),
        Ok(None) | Err(_) => bail!("a block's output is not to be had"),
    }
}

struct Taken(Mutex<Option<CudaStorage>>);

impl InplaceOp1 for Taken {
    fn name(&self) -> &'static str {
        "taken"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        elsewhere()
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let whole = layout.is_contiguous() && layout.start_offset() == 0;
        if !whole || storage.as_cuda_slice::<f32>()?.len() != layout.shape().elem_count() {
            bail!("a block's output is not whole: {layout:?}")
        }
        let device = storage.device.clone();
        let nothing = CudaStorageSlice::F32(buffer(&device, 1)?);
        let slice = std::mem::replace(&mut storage.slice, nothing);
        *self.0.lock().expect("nothing panics while it is held") = Some(CudaStorage { slice, device });
        Ok(())
    }
}
