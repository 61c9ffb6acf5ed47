//! Tensors of the file, without copying where their bytes lie in it as they are used.

use super::problem::Refusal;
use super::proto::TensorProto;
use crate::ops::Fact;
use crate::tensor::{DType, Tensor, elements};
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// The folder a model lies in, for weights that are files of their own.
pub trait DataFolder: Send + Sync {
    /// The contents of the file `name`, a relative path without `..` inside the folder, best as a memory map. The
    /// implementation must not follow a symbolic link out of the folder.
    ///
    /// # Errors
    /// What keeps the file from being read, as a sentence.
    fn read(&self, name: &str) -> Result<Bytes, String>;
}

/// No folder: every external tensor is refused.
#[derive(Clone, Copy, Debug)]
pub struct NoFolder;

impl DataFolder for NoFolder {
    fn read(&self, _name: &str) -> Result<Bytes, String> {
        Err("the model was given without its folder".into())
    }
}

/// The files of a folder, each read once.
pub(crate) struct External {
    folder: Box<dyn DataFolder>,
    files: Mutex<HashMap<String, Result<Bytes, String>>>,
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External").field("files", &self.files).finish_non_exhaustive()
    }
}

impl External {
    pub(crate) fn new(folder: Box<dyn DataFolder>) -> External {
        External { folder, files: Mutex::default() }
    }

    fn read(&self, name: &str) -> Result<Bytes, Refusal> {
        let outside = name.is_empty()
            || name.contains(['\\', ':', '\0'])
            || name.split('/').any(|part| part.is_empty() || part == "..");
        if outside {
            return Err(Refusal::invalid(format!(
                "the external data {name:?} does not lie in the model's folder by a plain relative path"
            )));
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.entry(name.to_owned()).or_insert_with(|| self.folder.read(name));
        file.clone().map_err(|error| Refusal::invalid(format!("the external data {name:?}: {error}")))
    }
}

/// The element type of a number of `TensorProto.DataType`.
pub(crate) fn dtype(number: i32) -> Result<DType, Refusal> {
    Ok(match number {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        0 => return Err(Refusal::invalid("the element type is not given")),
        8 => return Err(Refusal::unsupported("tensors of strings")),
        14 | 15 => return Err(Refusal::unsupported("complex numbers")),
        17..=20 | 24 => return Err(Refusal::unsupported("8-bit floats")),
        21 | 22 => return Err(Refusal::unsupported("4-bit integers")),
        23 => return Err(Refusal::unsupported("4-bit floats")),
        25 | 26 => return Err(Refusal::unsupported("2-bit integers")),
        _ => return Err(Refusal::invalid(format!("there is no element type {number}"))),
    })
}

/// The number of `TensorProto.DataType` of an element type.
#[cfg(test)]
pub(crate) fn dtype_number(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
        DType::BF16 => 16,
    }
}

/// The host tensor a message describes.
pub(crate) fn tensor(proto: &TensorProto, external: &External) -> Result<Tensor, Refusal> {
    let dtype = dtype(proto.data_type)?;
    let shape = proto.dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| Refusal::invalid(format!("the shape {:?} is negative", proto.dims)))?;
    let fact = Fact { dtype, shape }.checked()?;
    let bytes = if proto.data_location == 1 {
        external_bytes(proto, &fact, external)?
    } else if let Some(raw) = &proto.raw_data {
        raw.clone()
    } else {
        typed_bytes(proto, &fact)?
    };
    let bytes = match dtype {
        DType::Bool if bytes.iter().any(|&byte| byte > 1) => {
            bytes.iter().map(|&byte| u8::from(byte != 0)).collect()
        }
        DType::Bool
        | DType::F16
        | DType::BF16
        | DType::F32
        | DType::F64
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64 => bytes,
    };
    Tensor::new(dtype, fact.shape, bytes).map_err(|error| Refusal::invalid(error.to_string()))
}

fn external_bytes(proto: &TensorProto, fact: &Fact, external: &External) -> Result<Bytes, Refusal> {
    let entry =
        |key: &str| proto.external_data.iter().find(|entry| entry.key == key).map(|entry| &*entry.value);
    let number = |key: &str, default: usize| match entry(key) {
        None => Ok(default),
        Some(text) => text.trim().parse::<usize>().map_err(|_| {
            Refusal::invalid(format!("the {key} {text:?} of the external data is not a number of bytes"))
        }),
    };
    let name = entry("location").ok_or_else(|| Refusal::invalid("the external data has no location"))?;
    let (offset, length) = (number("offset", 0)?, number("length", fact.size_bytes())?);
    let file = external.read(name)?;
    let end = offset.checked_add(length).filter(|&end| end <= file.len());
    let end = end.ok_or_else(|| {
        Refusal::invalid(format!(
            "{length} bytes at {offset} do not lie in the {} bytes of the external data {name:?}",
            file.len()
        ))
    })?;
    Ok(file.slice(offset..end))
}

/// The elements of the message's typed fields.
fn typed_bytes(proto: &TensorProto, fact: &Fact) -> Result<Bytes, Refusal> {
    let given = match fact.dtype {
        DType::F32 => proto.float_data.len(),
        DType::F64 => proto.double_data.len(),
        DType::I64 => proto.int64_data.len(),
        DType::U32 | DType::U64 => proto.uint64_data.len(),
        DType::F16
        | DType::BF16
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::U8
        | DType::U16
        | DType::Bool => proto.int32_data.len(),
    };
    if elements(&fact.shape) != Some(given) {
        return Err(Refusal::invalid(format!("{fact} has {given} elements")));
    }
    let mut bytes = Vec::with_capacity(fact.size_bytes());
    match fact.dtype {
        DType::F32 => bytes.extend(proto.float_data.iter().flat_map(|value| value.to_le_bytes())),
        DType::F64 => bytes.extend(proto.double_data.iter().flat_map(|value| value.to_le_bytes())),
        DType::I64 => bytes.extend(proto.int64_data.iter().flat_map(|value| value.to_le_bytes())),
        DType::U32 | DType::U64 => {
            let size = fact.dtype.size_bytes();
            proto.uint64_data.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()[..size]));
        }
        // The low bits of an i32: also how 16-bit floats are stored.
        DType::F16
        | DType::BF16
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::U8
        | DType::U16
        | DType::Bool => {
            let size = fact.dtype.size_bytes();
            proto.int32_data.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()[..size]));
        }
    }
    Ok(bytes.into())
}
