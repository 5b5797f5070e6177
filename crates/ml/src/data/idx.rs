//! IDX images and labels of unsigned bytes, as MNIST is published, gzipped or not (known by its magic bytes).
//!
//! Layout (big-endian): two zero bytes, the element type (8: unsigned byte), the number of dimensions, one u32 a
//! dimension, then the bytes, last dimension fastest. A header is believed only as far as the file bears it out: reading
//! stops one byte after what the header promises, and memory grows with the bytes that are there.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::{DataError, ImageRows};

const UNSIGNED_BYTE: u8 = 0x08;
/// No image of more pixels a side is taken for one.
pub(crate) const LARGEST_SIDE: usize = 4096;

/// The images of one file: `[rows, height, width]` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxImages {
    pub rows: usize,
    pub height: usize,
    pub width: usize,
    pub pixels: Vec<u8>,
}

/// What the header of a file of images says: rows, height, width.
pub fn shape_of_images(file: &Path) -> Result<[usize; 3], DataError> {
    let [rows, height, width] = read_header::<3>(file, &mut open(file)?)?;
    check_sides(file, height, width)?;
    Ok([rows, height, width])
}

/// Reads a file of three dimensions: rows, height, width.
pub fn read_images(file: &Path) -> Result<IdxImages, DataError> {
    let ([rows, height, width], pixels) = read_array::<3>(file)?;
    check_sides(file, height, width)?;
    Ok(IdxImages {
        rows,
        height,
        width,
        pixels,
    })
}

fn check_sides(file: &Path, height: usize, width: usize) -> Result<(), DataError> {
    let sides = 1..=LARGEST_SIDE;
    if sides.contains(&height) && sides.contains(&width) {
        return Ok(());
    }
    Err(DataError::NotIdx {
        file: file.to_owned(),
        reason: format!("images of {width}×{height} pixels"),
    })
}

/// Reads a file of one dimension: a class number a row.
pub fn read_labels(file: &Path) -> Result<Vec<u8>, DataError> {
    let (_, labels) = read_array::<1>(file)?;
    Ok(labels)
}

/// Reads images and their labels, which must be of one number.
pub fn read_pair(images_file: &Path, labels_file: &Path) -> Result<ImageRows, DataError> {
    let images = read_images(images_file)?;
    let labels = read_labels(labels_file)?;
    if images.rows != labels.len() {
        return Err(DataError::CountMismatch {
            images_file: images_file.to_owned(),
            images: images.rows,
            labels_file: labels_file.to_owned(),
            labels: labels.len(),
        });
    }
    let IdxImages {
        height, width, pixels, ..
    } = images;
    Ok(ImageRows {
        width,
        height,
        channels: 1,
        pixels,
        labels: labels.into_iter().map(u32::from).collect(),
    })
}

/// The bytes of `file`, unpacked if it is gzipped.
fn open(file: &Path) -> Result<Box<dyn Read>, DataError> {
    let opened = File::open(file).map_err(DataError::unreadable(file))?;
    let mut plain = BufReader::new(opened);
    let start = io::BufRead::fill_buf(&mut plain).map_err(DataError::unreadable(file))?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(plain))
    } else {
        Box::new(plain)
    })
}

fn read_header<const D: usize>(file: &Path, stream: &mut dyn Read) -> Result<[usize; D], DataError> {
    parse_header(file, &take(file, stream, 4 + 4 * D as u64)?)
}

/// Reads an array of `D` dimensions, none of them empty.
fn read_array<const D: usize>(file: &Path) -> Result<([usize; D], Vec<u8>), DataError> {
    let mut stream = open(file)?;
    let dimensions = read_header::<D>(file, &mut stream)?;
    let expected = dimensions
        .iter()
        .try_fold(1u64, |product, &dimension| product.checked_mul(dimension as u64))
        .filter(|bytes| isize::try_from(*bytes).is_ok())
        .ok_or_else(|| DataError::NotIdx {
            file: file.to_owned(),
            reason: format!("dimensions {dimensions:?}"),
        })?;
    let length = |found: String| DataError::IdxLength {
        file: file.to_owned(),
        expected,
        found,
    };
    let bytes = take(file, &mut stream, expected + 1)?;
    match (bytes.len() as u64).cmp(&expected) {
        std::cmp::Ordering::Less => Err(length(format!("{}", bytes.len()))),
        std::cmp::Ordering::Greater => Err(length("more".to_owned())),
        std::cmp::Ordering::Equal if expected == 0 => Err(DataError::Empty { file: file.to_owned() }),
        std::cmp::Ordering::Equal => Ok((dimensions, bytes)),
    }
}

/// Up to `limit` bytes; memory grows as they arrive.
fn take(file: &Path, stream: &mut dyn Read, limit: u64) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    stream
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| match source.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                DataError::BadGzip {
                    file: file.to_owned(),
                    source,
                }
            }
            _ => DataError::Unreadable {
                file: file.to_owned(),
                source,
            },
        })?;
    Ok(bytes)
}

fn parse_header<const D: usize>(file: &Path, header: &[u8]) -> Result<[usize; D], DataError> {
    let refuse = |reason: String| DataError::NotIdx {
        file: file.to_owned(),
        reason,
    };
    let Some((magic, sizes)) = header.split_first_chunk::<4>() else {
        return Err(refuse(format!("only {} bytes", header.len())));
    };
    let wanted = [
        0,
        0,
        UNSIGNED_BYTE,
        u8::try_from(D).expect("IDX arrays have few dimensions"),
    ];
    if *magic != wanted {
        return Err(refuse(format!("it starts with {magic:02x?}, not {wanted:02x?}")));
    }
    let (sizes, _) = sizes.as_chunks::<4>();
    let sizes: Vec<usize> = sizes.iter().map(|size| u32::from_be_bytes(*size) as usize).collect();
    <[usize; D]>::try_from(sizes).map_err(|sizes| refuse(format!("its header ends after {} of {D} sizes", sizes.len())))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::test_data;
    use super::*;

    fn idx(magic: u32, sizes: &[u32], body: &[u8]) -> Vec<u8> {
        let header = [magic]
            .into_iter()
            .chain(sizes.iter().copied())
            .flat_map(u32::to_be_bytes);
        header.chain(body.iter().copied()).collect()
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn images_of(bytes: &[u8]) -> Result<IdxImages, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("images");
        std::fs::write(&file, bytes).unwrap();
        read_images(&file)
    }

    #[test]
    fn images_read_alike_gzipped_or_not() {
        let plain = idx(0x803, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let images = images_of(&plain).unwrap();
        assert_eq!((images.rows, images.height, images.width), (2, 1, 3));
        assert_eq!(images.pixels, [1, 2, 3, 4, 5, 6]);
        assert_eq!(images_of(&gzipped(&plain)).unwrap(), images);
    }

    #[test]
    fn hostile_files_are_refused_by_name() {
        let huge = [u32::MAX, 4096, 4096];
        let good = idx(0x803, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let cut_gzip = gzipped(&good);
        let cases: [(Vec<u8>, &str); 11] = [
            (vec![], "only 0 bytes"),
            (
                idx(0x801, &[3], &[1, 2, 3]),
                "it starts with [00, 00, 08, 01], not [00, 00, 08, 03]",
            ),
            (idx(0xd03, &[2, 1, 3], &[]), "it starts with"),
            (good[..14].to_vec(), "its header ends after 2 of 3 sizes"),
            (good[..20].to_vec(), "the header promises 6 bytes, the file holds 4"),
            (
                [good.as_slice(), &[0]].concat(),
                "the header promises 6 bytes, the file holds more",
            ),
            (
                idx(0x803, &huge, &[7]),
                "the header promises 72057594021150720 bytes, the file holds 1",
            ),
            (
                idx(0x803, &[u32::MAX; 3], &[7]),
                "dimensions [4294967295, 4294967295, 4294967295]",
            ),
            (idx(0x803, &[0, 28, 28], &[]), "holds no rows"),
            (idx(0x803, &[1, 1, 5000], &[0; 5000]), "images of 5000×1 pixels"),
            (cut_gzip[..cut_gzip.len() - 9].to_vec(), "broken gzip"),
        ];
        for (bytes, expected) in cases {
            let error = images_of(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, where `{expected}` was due");
        }
    }

    #[test]
    fn a_gzip_bomb_is_read_no_further_than_the_header_promises() {
        let bomb = gzipped(&idx(0x803, &[1, 2, 2], &vec![0; 64 << 20]));
        let error = images_of(&bomb).unwrap_err().to_string();
        assert!(error.contains("promises 4 bytes, the file holds more"), "{error}");
    }

    #[test]
    fn images_and_labels_must_be_of_one_number() {
        let folder = tempfile::tempdir().unwrap();
        let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
        std::fs::write(&images, idx(0x803, &[2, 1, 1], &[1, 2])).unwrap();
        std::fs::write(&labels, idx(0x801, &[2], &[0, 9])).unwrap();
        assert_eq!(read_pair(&images, &labels).unwrap().labels, [0, 9]);
        std::fs::write(&labels, idx(0x801, &[3], &[0, 9, 1])).unwrap();
        let error = read_pair(&images, &labels).unwrap_err().to_string();
        assert!(
            error.contains("holds 2 images but") && error.contains("3 labels"),
            "{error}"
        );
    }

    #[test]
    fn mnist_reads_as_published() {
        let Some(folder) = test_data::find("mnist") else { return };
        let file = |name: &str| folder.join(name);
        let rows = read_pair(&file("train-images-idx3-ubyte.gz"), &file("train-labels-idx1-ubyte.gz")).unwrap();
        assert_eq!((rows.width, rows.height, rows.labels.len()), (28, 28, 60_000));
        let counts = rows.labels.iter().fold([0; 10], |mut counts, &label| {
            counts[label as usize] += 1;
            counts
        });
        assert_eq!(counts, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    }
}
