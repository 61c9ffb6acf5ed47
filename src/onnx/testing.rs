//! Small models built in code, for tests.

use super::proto::{
    AttributeProto, AttributeType, DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::weights::dtype_number;
use super::{Bindings, ImportError, Model, NoFolder};
use crate::graph::Graph;
use crate::tensor::{DType, Tensor};
use bytes::Bytes;
use prost::Message;

/// An ONNX model that grows.
#[derive(Clone)]
pub(crate) struct Build {
    pub(crate) proto: ModelProto,
}

/// The value of an attribute.
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    String(&'static str),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Tensor(Tensor),
    Graph(GraphProto),
}

impl Build {
    pub(crate) fn new(opset: i64) -> Build {
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
        let graph = GraphProto { name: "test".into(), ..GraphProto::default() };
        Build {
            proto: ModelProto { ir_version: 8, graph: Some(graph), opset_import, ..ModelProto::default() },
        }
    }

    pub(crate) fn graph_mut(&mut self) -> &mut GraphProto {
        self.proto.graph.as_mut().expect("a model under construction should have a graph")
    }

    /// An input; what is no number is a symbol.
    pub(crate) fn input(mut self, name: &str, dtype: DType, dims: &[&str]) -> Build {
        self.graph_mut().input.push(info(name, dtype, dims));
        self
    }

    pub(crate) fn constant(mut self, name: &str, tensor: Tensor) -> Build {
        self.graph_mut().initializer.push(tensor_proto(name, &tensor));
        self
    }

    /// A constant vector of integers.
    pub(crate) fn ints(self, name: &str, values: &[i64]) -> Build {
        self.constant(name, Tensor::from_slice(&[values.len()], values))
    }

    pub(crate) fn node(
        mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<(&str, Attribute)>,
    ) -> Build {
        self.graph_mut().node.push(node(op, inputs, outputs, attributes));
        self
    }

    pub(crate) fn output(mut self, name: &str) -> Build {
        self.graph_mut().output.push(info(name, DType::F32, &[]));
        self
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.proto.encode_to_vec().into()
    }

    pub(crate) fn model(&self) -> Model {
        Model::from_bytes(self.bytes(), NoFolder).expect("an encoded model should decode")
    }

    pub(crate) fn graph(&self) -> Result<Graph, ImportError> {
        self.model().graph(&Bindings::new())
    }

    /// The graph as text, or the problems.
    pub(crate) fn text(&self) -> String {
        match self.graph() {
            Ok(graph) => {
                graph.verify().expect("an imported graph should verify");
                graph.to_string()
            }
            Err(error) => format!("{error}\n"),
        }
    }
}

pub(crate) fn node(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: Vec<(&str, Attribute)>,
) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto {
        name: String::new(),
        op_type: op.to_owned(),
        input: names(inputs),
        output: names(outputs),
        attribute: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
        domain: String::new(),
    }
}

fn attribute(name: &str, value: Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    let of = match value {
        Attribute::Int(value) => {
            proto.i = Some(value);
            AttributeType::Int
        }
        Attribute::Float(value) => {
            proto.f = Some(value);
            AttributeType::Float
        }
        Attribute::String(value) => {
            proto.s = Some(Bytes::from(value));
            AttributeType::String
        }
        Attribute::Ints(values) => {
            proto.ints = values;
            AttributeType::Ints
        }
        Attribute::Floats(values) => {
            proto.floats = values;
            AttributeType::Floats
        }
        Attribute::Tensor(value) => {
            proto.t = Some(Box::new(tensor_proto("", &value)));
            AttributeType::Tensor
        }
        Attribute::Graph(value) => {
            proto.g = Some(Box::new(value));
            AttributeType::Graph
        }
    };
    proto.r#type = of as i32;
    proto
}

pub(crate) fn tensor_proto(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: tensor.shape().iter().map(|&dim| dim as i64).collect(),
        data_type: dtype_number(tensor.dtype()),
        raw_data: Some(tensor.bytes().clone()),
        ..TensorProto::default()
    }
}

pub(crate) fn info(name: &str, dtype: DType, dims: &[&str]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| DimensionProto {
            value: match dim.parse() {
                Ok(extent) => Some(DimensionValue::Value(extent)),
                Err(_) => Some(DimensionValue::Param((*dim).to_owned())),
            },
        })
        .collect();
    let tensor = TensorTypeProto { elem_type: dtype_number(dtype), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}
