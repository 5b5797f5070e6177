//! Between candle's storages and slices: reading, building a new buffer in parallel without clearing it first, and
//! changing a tensor in place.

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Elements of one task of an elementwise kernel: 16 KiB, so that a task's data stays in the first-level cache.
pub(crate) const TASK: usize = 4096;

/// Rows of `width` elements that make up about one [`TASK`]; depends on the shape alone.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// Whether a fused kernel runs on `tensor`: f32 on the CPU.
pub(crate) fn is_fused(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32
}

/// Whether ops on `tensor` with their backward passes are one op each, on the CPU or on CUDA.
pub(crate) fn has_own_op(tensor: &Tensor) -> bool {
    is_fused(tensor) || cfg!(feature = "cuda") && tensor.device().is_cuda() && tensor.dtype() == DType::F32
}

/// Returns what the op of [`crate::cuda`] gives, if this build has it and the tensor is f32 on CUDA.
macro_rules! on_cuda {
    ($tensor:expr, $op:ident($($argument:expr),*)) => {
        #[cfg(feature = "cuda")]
        if $tensor.device().is_cuda() && $tensor.dtype() == candle_core::DType::F32 {
            return crate::cuda::$op($($argument),*);
        }
    };
}
pub(crate) use on_cuda;

/// The elements of a contiguous f32 CPU storage, in order.
pub(crate) fn cpu_slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!(
            "a kernel was given a tensor that is not contiguous: {:?}",
            layout.shape()
        )
    };
    match storage {
        CpuStorage::F32(values) => Ok(&values[start..end]),
        _ => bail!("a kernel was given {:?} where it takes f32", storage_type(storage)),
    }
}

fn storage_type(storage: &CpuStorage) -> DType {
    candle_core::backend::BackendStorage::dtype(storage)
}

/// As [`cpu_slice`], of the guard of [`Tensor::storage_and_layout`].
pub(crate) fn slice<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => cpu_slice(storage, layout),
        Storage::Cuda(_) | Storage::Metal(_) => bail!("a CPU kernel was given a tensor of another device"),
    }
}

/// A CPU tensor of `values`.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// Runs `fill(offset, piece)` for consecutive pieces of `chunk` elements of a new buffer, in parallel. `fill` hands back
/// the piece it was given, written in full, which is how the buffer is known to be initialized.
///
/// # Panics
/// If `fill` hands back anything else, or `chunk` is 0.
pub(crate) fn build_chunks<F>(len: usize, chunk: usize, fill: F) -> Vec<f32>
where
    F: for<'a> Fn(usize, &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] + Sync,
{
    let mut values: Vec<f32> = Vec::with_capacity(len);
    let spare = &mut values.spare_capacity_mut()[..len];
    spare.par_chunks_mut(chunk).enumerate().for_each(|(index, piece)| {
        let expected = (piece.as_ptr().cast::<f32>(), piece.len());
        let written = fill(index * chunk, piece);
        assert_eq!(
            (written.as_ptr(), written.len()),
            expected,
            "a kernel left a part of its output unwritten"
        );
    });
    // SAFETY: for each piece of the `len` elements, `fill` returned a `&mut [f32]` over exactly that piece, which safe
    // code can only have made by initializing it.
    unsafe { values.set_len(len) };
    values
}

/// Sizes of a batch of images, each channel of each a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planes {
    /// Images.
    pub(crate) batch: usize,
    /// Planes of an image.
    pub(crate) channels: usize,
    /// Elements of a plane.
    pub(crate) plane: usize,
}

impl Planes {
    /// Those of `[batch, channels, height, width]`.
    pub(crate) fn of(shape: &Shape) -> Result<Self> {
        let (batch, channels, height, width) = shape.dims4()?;
        Ok(Self {
            batch,
            channels,
            plane: height * width,
        })
    }

    /// One plane of `x`.
    pub(crate) fn slice<'a>(&self, x: &'a [f32], image: usize, channel: usize) -> &'a [f32] {
        &x[(image * self.channels + channel) * self.plane..][..self.plane]
    }
}

/// A new buffer of `planes`, a task for each channel: `prepare(channel)` once, then `fill(prepared, image, channel, piece)`
/// for its plane of each image, as in [`build_chunks`]. Also gives what was prepared, by channel.
///
/// # Panics
/// If `fill` hands back anything but its piece.
pub(crate) fn build_planes<P: Send>(
    planes: Planes,
    prepare: impl Fn(usize) -> P + Sync,
    fill: impl for<'a> Fn(&P, usize, usize, &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] + Sync,
) -> (Vec<f32>, Vec<P>) {
    let Planes { batch, channels, plane } = planes;
    let len = batch * channels * plane;
    let mut values: Vec<f32> = Vec::with_capacity(len);
    let spare = &mut values.spare_capacity_mut()[..len];
    let mut by_channel: Vec<Vec<&mut [MaybeUninit<f32>]>> = Vec::new();
    by_channel.resize_with(channels, || Vec::with_capacity(batch));
    for (index, piece) in spare.chunks_exact_mut(plane.max(1)).enumerate() {
        by_channel[index % channels].push(piece);
    }
    let prepared = by_channel.into_par_iter().enumerate().map(|(channel, pieces)| {
        let prepared = prepare(channel);
        for (image, piece) in pieces.into_iter().enumerate() {
            let expected = (piece.as_ptr().cast::<f32>(), piece.len());
            let written = fill(&prepared, image, channel, piece);
            assert_eq!(
                (written.as_ptr(), written.len()),
                expected,
                "a kernel left a part of its output unwritten"
            );
        }
        prepared
    });
    let prepared = prepared.collect();
    // SAFETY: `len` is a multiple of `plane`, so that the pieces are all of it, each went to one channel, and for each
    // `fill` returned a `&mut [f32]` over exactly that piece, which safe code can only have made by initializing it.
    unsafe { values.set_len(len) };
    (values, prepared)
}

/// Zeros, written by all threads: an allocator that reuses memory clears it by one.
pub(crate) fn zeros(len: usize) -> Vec<f32> {
    build_chunks(len, 16 * TASK, |_, piece| filled(piece, 0.0))
}

/// `piece` with `value` everywhere.
pub(crate) fn filled(piece: &mut [MaybeUninit<f32>], value: f32) -> &mut [f32] {
    piece.fill(MaybeUninit::new(value));
    // SAFETY: every element has just been written.
    unsafe { piece.assume_init_mut() }
}

/// A copy of `source`, changed piece by piece by `change(offset, piece)` while the piece is in cache.
pub(crate) fn transform(source: &[f32], chunk: usize, change: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    build_chunks(source.len(), chunk, |offset, piece| {
        let piece_source = &source[offset..offset + piece.len()];
        let piece = piece.write_copy_of_slice(piece_source);
        change(offset, piece);
        piece
    })
}

/// The gradient of an elementwise op: `change(gradient piece, argument piece)` turns the output's gradient into the
/// argument's.
pub(crate) fn elementwise_backward(
    argument: &Tensor,
    gradient: &Tensor,
    change: impl Fn(&mut [f32], &[f32]) + Sync,
) -> Result<Tensor> {
    let gradient = gradient.contiguous()?;
    let (x, x_layout) = argument.storage_and_layout();
    let (g, g_layout) = gradient.storage_and_layout();
    let x = slice(&x, x_layout)?;
    let values = transform(slice(&g, g_layout)?, TASK, |offset, piece| {
        let end = offset + piece.len();
        change(piece, &x[offset..end]);
    });
    tensor(values, argument.shape())
}

/// Calls `change` with the elements of a contiguous f32 CPU tensor, which it may write. Calls may be nested for tensors
/// that share no storage.
pub(crate) fn change_in_place(tensor: &Tensor, change: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    tensor.inplace_op1(&Change(RefCell::new(Some(change))))
}

/// Whether any two of the tensors have one storage, which would make nested [`change_in_place`] wait for itself.
pub(crate) fn share_storage<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    let address = |tensor: &Tensor| {
        let (storage, _) = tensor.storage_and_layout();
        std::ptr::from_ref::<Storage>(&storage).addr()
    };
    let mut addresses: Vec<usize> = tensors.into_iter().map(address).collect();
    addresses.sort_unstable();
    addresses.windows(2).any(|pair| pair[0] == pair[1])
}

struct Change<F>(RefCell<Option<F>>);

impl<F: FnOnce(&mut [f32]) -> Result<()>> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "change_in_place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!(
                "a tensor must be contiguous to be changed in place: {:?}",
                layout.shape()
            )
        };
        let change = self.0.borrow_mut().take().expect("an in-place op runs once");
        match storage {
            CpuStorage::F32(values) => change(&mut values[start..end]),
            _ => bail!(
                "{:?} cannot be changed in place by an f32 kernel",
                storage_type(storage)
            ),
        }
    }
}

/// Writes `source` over the elements of `target`, on any device.
pub(crate) fn overwrite(target: &Tensor, source: &Tensor) -> Result<()> {
    if target.elem_count() == 0 {
        return Ok(());
    }
    target
        .flatten_all()?
        .slice_set(&source.flatten_all()?.contiguous()?, 0, 0)
}

/// A mutable buffer that tasks write at places that do not overlap.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` is only a pointer to a buffer borrowed for `'a`; whoever writes through it promises that no two
// tasks touch one place.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// The buffer to share.
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Self {
            start: buffer.as_mut_ptr(),
            len: buffer.len(),
            lifetime: PhantomData,
        }
    }

    /// A buffer that may not be initialized yet: what is not is only written, through [`Self::pointer`].
    ///
    /// # Safety
    /// `len` elements from `start` on are valid for writes for `'a`, and nothing else accesses them.
    pub(crate) unsafe fn over(start: *mut T, len: usize) -> Self {
        Self {
            start,
            len,
            lifetime: PhantomData,
        }
    }

    /// A pointer to element `offset` of the buffer.
    pub(crate) fn pointer(&self, offset: usize) -> *mut T {
        assert!(offset <= self.len, "offset {offset} of a buffer of {}", self.len);
        self.start.wrapping_add(offset)
    }

    /// The `len` elements from `offset` on.
    ///
    /// # Safety
    /// No other task reads or writes any of them while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "the caller promises disjoint ranges")]
    pub(crate) unsafe fn range(&self, offset: usize, len: usize) -> &mut [T] {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "{len} from {offset} of {}",
            self.len
        );
        // SAFETY: within the buffer by the assertion, and unshared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transform_covers_every_piece() {
        for n in [0usize, 1, 7, 64, 4097] {
            let source: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let doubled = transform(&source, 7, |offset, piece| {
                for (i, v) in piece.iter_mut().enumerate() {
                    assert_eq!(*v, (offset + i) as f32);
                    *v *= 2.0;
                }
            });
            assert!(doubled.iter().zip(&source).all(|(a, b)| *a == b * 2.0) && doubled.len() == n);
        }
    }

    #[test]
    #[should_panic(expected = "unwritten")]
    fn a_short_piece_is_found_out() {
        build_chunks(8, 4, |_, piece| &mut filled(piece, 0.0)[..3]);
    }

    #[test]
    fn overwrite_keeps_the_storage() -> Result<()> {
        let target = Tensor::zeros((2, 2), DType::F32, &Device::Cpu)?;
        let view = target.clone();
        overwrite(&target, &Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?)?;
        assert_eq!(view.to_vec2::<f32>()?, [[1., 2.], [3., 4.]]);
        Ok(())
    }
}
