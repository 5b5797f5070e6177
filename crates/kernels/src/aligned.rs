//! Buffers that begin where a line of the caches does: a register's load that lies across two lines takes as long as two.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;

/// Bytes of a line.
const LINE: usize = 64;

/// Elements of a plain type from a line's beginning on.
///
/// Not an allocation of that alignment: glibc cuts those out of larger ones, and what is left over costs memory and time.
///
/// Invariant: the capacity of `bytes` holds `len` elements from `offset` on, all initialized, and `offset` is where a line begins.
pub(crate) struct Aligned<T> {
    bytes: Vec<MaybeUninit<u8>>,
    offset: usize,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Copy> Aligned<T> {
    /// # Safety
    /// `fill` writes every element.
    pub(crate) unsafe fn build(len: usize, fill: impl FnOnce(&mut [MaybeUninit<T>])) -> Self {
        const { assert!(align_of::<T>() <= LINE) }
        let size = len.checked_mul(size_of::<T>()).and_then(|size| size.checked_add(LINE));
        let mut bytes = Vec::<MaybeUninit<u8>>::with_capacity(size.expect("a buffer fits into memory"));
        let offset = bytes.as_ptr().addr().next_multiple_of(LINE) - bytes.as_ptr().addr();
        // SAFETY: the capacity holds `len` elements from the offset on, which is below `LINE` and aligned for them, and nothing
        // else can reach it.
        fill(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().add(offset).cast(), len) });
        Self {
            bytes,
            offset,
            len,
            elements: PhantomData,
        }
    }
}

impl<T: Copy> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: by this type's invariant.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().add(self.offset).cast(), self.len) }
    }
}

impl<T: Copy> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        // SAFETY: it writes as many elements as there are.
        unsafe {
            Self::build(self.len, |out| {
                out.write_copy_of_slice(self);
            })
        }
    }
}

impl<T: Copy + PartialEq> PartialEq for Aligned<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Copy + Eq> Eq for Aligned<T> {}

impl<T: Copy + std::fmt::Debug> std::fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_any_number_from_a_line_on() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let values: Vec<u32> = (0..len).collect();
            let fill = |out: &mut [MaybeUninit<u32>]| {
                out.write_copy_of_slice(&values);
            };
            // SAFETY: it writes all.
            let aligned = unsafe { Aligned::build(values.len(), fill) };
            assert_eq!(*aligned, *values);
            assert_eq!(aligned.clone(), aligned);
            assert!(aligned.as_ptr().addr().is_multiple_of(LINE));
        }
    }
}
