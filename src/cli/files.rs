//! Files: memory maps, models and their folders, NumPy arrays.

use super::error::CliError;
use crate::onnx::DataFolder;
use crate::tensor::{DType, Tensor};
use bytes::{Buf, Bytes};
use memmap2::{Mmap, MmapOptions};
use npyz::zip::ZipArchive;
use npyz::zip::ZipWriter;
use npyz::{NpyHeader, Order, TypeChar};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// The contents of a regular file, mapped.
pub(super) fn map(path: &Path) -> Result<Bytes, CliError> {
    map_file(path).map_err(|error| CliError::input(format!("cannot read {}: {error}", path.display())))
}

fn map_file(path: &Path) -> Result<Bytes, std::io::Error> {
    Ok(Bytes::from_owner(map_range(&open(path)?, 0, None)?))
}

fn open(path: &Path) -> Result<File, std::io::Error> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("it is no regular file")) }
}

/// The bytes of a file from `start` on, all or `length` of them.
#[expect(unsafe_code, reason = "a mapped file cannot be protected from other processes")]
fn map_range(file: &File, start: usize, length: Option<usize>) -> Result<Mmap, std::io::Error> {
    let mut options = MmapOptions::new();
    options.offset(start as u64);
    if let Some(length) = length {
        options.len(length);
    }
    // SAFETY: the map is private to this process and read only. Another process that writes to the file while it is mapped may
    // change what is read, which no reader relies on being constant for memory safety: bytes are copied or checked where they
    // are interpreted. One that truncates it ends this process by a signal; the documentation of the command says so.
    unsafe { options.map(file) }
}

/// A model file while it is decoded. Its large fields, the weights, become maps of their own: each takes memory when it is read, and
/// gives it back when nothing needs it any more.
pub(super) struct ModelFile {
    file: File,
    map: Mmap,
    at: usize,
}

/// Fields from this size on are mapped, smaller ones copied.
const MAPPED_BYTES: usize = 1 << 16;

impl ModelFile {
    pub(super) fn open(path: &Path) -> Result<ModelFile, CliError> {
        let open = || -> Result<ModelFile, std::io::Error> {
            let file = open(path)?;
            let map = map_range(&file, 0, None)?;
            // All of it is needed soon, and in an order that the system cannot guess. Where it does not listen nothing is lost.
            #[cfg(unix)]
            let _ = map.advise(memmap2::Advice::WillNeed);
            Ok(ModelFile { file, map, at: 0 })
        };
        open().map_err(|error| CliError::input(format!("cannot read {}: {error}", path.display())))
    }
}

impl Buf for ModelFile {
    fn remaining(&self) -> usize {
        self.map.len() - self.at
    }

    fn chunk(&self) -> &[u8] {
        &self.map[self.at..]
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "a reader should stay within the file");
        self.at += count;
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        let start = self.at;
        self.advance(length);
        if length >= MAPPED_BYTES
            && let Ok(map) = map_range(&self.file, start, Some(length))
        {
            return Bytes::from_owner(map);
        }
        Bytes::copy_from_slice(&self.map[start..self.at])
    }
}

/// The folder of a model file, which its external data may not leave.
pub(super) struct ModelFolder {
    path: PathBuf,
}

impl ModelFolder {
    pub(super) fn of(model: &Path) -> ModelFolder {
        let parent = model.parent().filter(|parent| !parent.as_os_str().is_empty());
        ModelFolder { path: parent.unwrap_or(Path::new(".")).to_path_buf() }
    }
}

impl DataFolder for ModelFolder {
    fn read(&self, name: &str) -> Result<Bytes, String> {
        let folder = self.path.canonicalize().map_err(|error| error.to_string())?;
        let file = folder.join(name).canonicalize().map_err(|error| error.to_string())?;
        if !file.starts_with(&folder) {
            return Err("a link leads out of the model's folder".into());
        }
        map_file(&file).map_err(|error| error.to_string())
    }
}

/// The array of a `.npy` file.
pub(super) fn read_npy(path: &Path) -> Result<Tensor, CliError> {
    let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    let tensor =
        file.and_then(|file| npy(BufReader::new(file)).map_err(|text| format!("{}: {text}", path.display())));
    tensor.map_err(CliError::Input)
}

/// The arrays of a `.npz` file by name, read only where `wanted` says so of the name.
pub(super) fn read_npz(
    path: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Option<Tensor>>, CliError> {
    let fail = |text: String| CliError::Input(format!("{}: {text}", path.display()));
    let file = File::open(path)
        .map_err(|error| CliError::input(format!("cannot read {}: {error}", path.display())))?;
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|error| fail(format!("it is no .npz archive ({error})")))?;
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|error| fail(error.to_string()))?;
        let Some(name) = entry.name().strip_suffix(".npy").map(str::to_string) else { continue };
        let tensor = match wanted(&name) {
            true => Some(npy(entry).map_err(|text| fail(format!("array `{name}`: {text}")))?),
            false => None,
        };
        arrays.insert(name, tensor);
    }
    Ok(arrays)
}

/// Writes a JSON document.
pub(super) fn write_json(path: &Path, document: &serde_json::Value) -> Result<(), CliError> {
    let write = || -> Result<(), std::io::Error> {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, document)?;
        file.flush()
    };
    write().map_err(|error| CliError::input(format!("cannot write {}: {error}", path.display())))
}

/// Writes arrays to a `.npz` file.
pub(super) fn write_npz(path: &Path, arrays: &[(String, Tensor)]) -> Result<(), CliError> {
    let write = || -> Result<(), std::io::Error> {
        let mut archive = ZipWriter::new(BufWriter::new(File::create(path)?));
        for (name, tensor) in arrays {
            let options = npyz::zip::write::FileOptions::default()
                .compression_method(npyz::zip::CompressionMethod::Stored)
                .large_file(tensor.bytes().len() >= u32::MAX as usize);
            archive.start_file(npyz::npz::file_name_from_array_name(name), options)?;
            archive.write_all(&npy_header(tensor))?;
            match tensor.dtype() {
                // NumPy has no bf16; f32 holds every value of it.
                DType::BF16 => archive.write_all(tensor.cast(DType::F32).bytes())?,
                DType::F16
                | DType::F32
                | DType::F64
                | DType::I8
                | DType::I16
                | DType::I32
                | DType::I64
                | DType::U8
                | DType::U16
                | DType::U32
                | DType::U64
                | DType::Bool => archive.write_all(tensor.bytes())?,
            }
        }
        archive.finish()?.flush()
    };
    write().map_err(|error| CliError::input(format!("cannot write {}: {error}", path.display())))
}

/// The header of version 1 or 2 of NumPy's format, padded to a multiple of 64 bytes.
fn npy_header(tensor: &Tensor) -> Vec<u8> {
    let code = match tensor.dtype() {
        DType::F16 => "<f2",
        DType::BF16 | DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
    };
    let dims: Vec<String> = tensor.shape().iter().map(|dim| format!("{dim},")).collect();
    let mut text = format!("{{'descr': '{code}', 'fortran_order': False, 'shape': ({}), }}", dims.join(" "));
    // Magic, version and length take 12 bytes in version 2, and a newline ends the header.
    let length = (12 + text.len() + 1).next_multiple_of(64) - 12;
    text.extend(std::iter::repeat_n(' ', length - text.len() - 1));
    text.push('\n');
    let mut header = b"\x93NUMPY\x02\x00".to_vec();
    header.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    header.extend(text.as_bytes());
    header
}

/// The array of a reader; what is wrong, as a sentence.
fn npy(mut reader: impl Read) -> Result<Tensor, String> {
    let header =
        NpyHeader::from_reader(&mut reader).map_err(|error| format!("it is no NumPy array ({error})"))?;
    let descr = header.dtype();
    let npyz::DType::Plain(plain) = &descr else { return Err("arrays of records are not supported".into()) };
    let dtype = match (plain.type_char(), plain.size_field()) {
        (TypeChar::Bool, 1) => DType::Bool,
        (TypeChar::Float, 2) => DType::F16,
        (TypeChar::Float, 4) => DType::F32,
        (TypeChar::Float, 8) => DType::F64,
        (TypeChar::Int, 1) => DType::I8,
        (TypeChar::Int, 2) => DType::I16,
        (TypeChar::Int, 4) => DType::I32,
        (TypeChar::Int, 8) => DType::I64,
        (TypeChar::Uint, 1) => DType::U8,
        (TypeChar::Uint, 2) => DType::U16,
        (TypeChar::Uint, 4) => DType::U32,
        (TypeChar::Uint, 8) => DType::U64,
        _other => return Err(format!("elements of type {} are not supported", descr.descr())),
    };
    if plain.endianness() == npyz::Endianness::Big && dtype.size_bytes() > 1 {
        return Err("big-endian arrays are not supported; store it little-endian".into());
    }
    let shape = header.shape().iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| format!("the shape {:?} is too large", header.shape()))?;
    let needed = crate::tensor::elements(&shape).and_then(|count| count.checked_mul(dtype.size_bytes()));
    let needed = needed.ok_or_else(|| format!("the shape {shape:?} is too large"))?;
    // Reads as far as there is data, so that a header cannot ask for memory that the file does not fill.
    let mut bytes = Vec::new();
    reader.take(needed as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() < needed {
        return Err(format!("it ends after {} of {needed} bytes", bytes.len()));
    }
    if dtype == DType::Bool {
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    let bytes = match header.order() {
        Order::C => bytes,
        Order::Fortran => from_fortran(&bytes, &shape, dtype.size_bytes()),
    };
    Tensor::new(dtype, shape, bytes.into()).map_err(|error| error.to_string())
}

/// The elements in row-major order.
fn from_fortran(bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..bytes.len() / size {
        let at = index.iter().zip(shape).rev().fold(0, |at, (i, dim)| at * dim + i);
        result.extend_from_slice(&bytes[at * size..][..size]);
        for (i, dim) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *dim {
                break;
            }
            *i = 0;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_survive_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let arrays = vec![
            ("x:0".to_string(), Tensor::from_slice(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])),
            ("a/b".to_string(), Tensor::scalar(7i64)),
            ("h".to_string(), Tensor::from_fn(DType::F16, &[3], |i| i as f64)),
            ("c".to_string(), Tensor::from_fn(DType::Bool, &[3], |i| i as f64)),
        ];
        write_npz(&path, &arrays).unwrap();
        let read = read_npz(&path, |name| name != "h").unwrap();
        assert_eq!(read["x:0"].as_ref(), Some(&arrays[0].1));
        assert_eq!(read["a/b"].as_ref(), Some(&arrays[1].1));
        assert_eq!(read["h"], None);
        assert_eq!(read["c"].as_ref(), Some(&arrays[3].1));
    }

    #[test]
    fn a_model_file_gives_its_bytes_in_pieces_of_any_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let written: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &written).unwrap();
        let mut file = ModelFile::open(&path).unwrap();
        let pieces = [3, MAPPED_BYTES - 1, MAPPED_BYTES, 4097, 2 * MAPPED_BYTES + 5];
        let mut read: Vec<u8> = pieces.iter().flat_map(|&length| file.copy_to_bytes(length)).collect();
        read.extend(file.chunk());
        assert_eq!(file.remaining(), written.len() - pieces.iter().sum::<usize>());
        assert!(read == written);
        assert!(ModelFile::open(folder.path()).is_err());
    }

    #[test]
    fn fortran_order_is_turned() {
        // [[1, 2, 3], [4, 5, 6]] by columns.
        assert_eq!(from_fortran(&[1, 4, 2, 5, 3, 6], &[2, 3], 1), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_header_asks_for_no_more_than_there_is() {
        let huge = npy_header(&Tensor::zeros(DType::F32, &[2]));
        let huge = String::from_utf8_lossy(&huge[12..]).replace("(2,)", "(9999999999,)");
        let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
        bytes.extend(u32::try_from(huge.len()).unwrap().to_le_bytes());
        bytes.extend(huge.as_bytes());
        assert_eq!(npy(&bytes[..]).unwrap_err(), "it ends after 0 of 39999999996 bytes");
    }
}
