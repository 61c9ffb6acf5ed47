//! Builds nests from code, as `ops` does.

use super::{Buffer, BufferId, Combiner, Loop, LoopKind, Nest, Role, Scope, Stmt, Store, Variable};
use crate::expr::{ExprId, ExprPool, VarId};
use crate::tensor::DType;
use std::collections::BTreeSet;

/// A nest under construction: statements are added to the innermost loop that is open.
#[derive(Debug)]
pub struct NestBuilder {
    nest: Nest,
    open: Vec<Loop>,
    blocks: BTreeSet<String>,
}

impl NestBuilder {
    /// Starts a nest.
    pub fn new(name: &str) -> NestBuilder {
        NestBuilder { nest: Nest::new(name), open: vec![], blocks: BTreeSet::new() }
    }

    /// The expressions of the nest.
    pub fn pool(&mut self) -> &mut ExprPool {
        &mut self.nest.pool
    }

    /// Shape and type of a buffer.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.nest.pool.buffers[id]
    }

    /// Adds a buffer that the caller binds: an input, a constant or an output.
    pub fn param(&mut self, role: Role, name: &str, dtype: DType, shape: &[usize]) -> BufferId {
        let id = self.declare(role, Scope::Global, name, dtype, shape);
        self.nest.params.push(id);
        id
    }

    /// Allocates a local buffer in the innermost open loop.
    pub fn alloc(&mut self, scope: Scope, name: &str, dtype: DType, shape: &[usize]) -> BufferId {
        let id = self.declare(Role::Local, scope, name, dtype, shape);
        self.push(Stmt::Alloc(id));
        id
    }

    fn declare(&mut self, role: Role, scope: Scope, name: &str, dtype: DType, shape: &[usize]) -> BufferId {
        let name = self.nest.fresh_buffer_name(name);
        self.nest.pool.buffers.push(Buffer {
            name,
            dtype,
            shape: shape.to_vec(),
            scope,
            role,
            row_padding: 0,
        })
    }

    /// Opens a serial loop and returns its variable as an expression.
    pub fn open(&mut self, name: &str, extent: usize) -> ExprId {
        let var: VarId = self.nest.pool.vars.push(Variable { name: name.to_string(), extent });
        self.open.push(Loop { var, kind: LoopKind::Serial, instruction: None, body: vec![] });
        self.nest.pool.var(var)
    }

    /// Opens one loop for each dimension and returns their variables.
    pub fn open_all(&mut self, dims: &[(&str, usize)]) -> Vec<ExprId> {
        dims.iter().map(|(name, extent)| self.open(name, *extent)).collect()
    }

    /// Closes the `count` innermost loops.
    ///
    /// # Panics
    /// When fewer are open.
    pub fn close(&mut self, count: usize) {
        for _ in 0..count {
            let inner = self.open.pop().expect("a loop should be open");
            self.push(Stmt::Loop(inner));
        }
    }

    /// The number of open loops.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Adds a block that writes `value`.
    pub fn store(&mut self, block: &str, buffer: BufferId, index: &[ExprId], value: ExprId) {
        self.store_where(block, buffer, index, None, value, None);
    }

    /// Adds a block that combines `value` with what is there.
    pub fn update(
        &mut self,
        block: &str,
        buffer: BufferId,
        index: &[ExprId],
        combiner: Combiner,
        value: ExprId,
    ) {
        self.store_where(block, buffer, index, Some(combiner), value, None);
    }

    /// Adds a block that writes or combines where `condition` holds.
    pub fn store_where(
        &mut self,
        block: &str,
        buffer: BufferId,
        index: &[ExprId],
        combine: Option<Combiner>,
        value: ExprId,
        condition: Option<ExprId>,
    ) {
        let block = self.fresh_block(block);
        let index = index.iter().map(|&i| self.nest.pool.simplify(i)).collect();
        let value = self.nest.pool.simplify(value);
        let condition = condition.map(|condition| self.nest.pool.simplify(condition));
        self.push(Stmt::Store(Store { block, buffer, index, value, combine, condition }));
    }

    fn fresh_block(&mut self, base: &str) -> String {
        let numbered = (1..).map(|n| format!("{base}{n}"));
        let name = std::iter::once(base.to_string()).chain(numbered).find(|name| !self.blocks.contains(name));
        let name = name.expect("there should be a free name");
        self.blocks.insert(name.clone());
        name
    }

    fn push(&mut self, stmt: Stmt) {
        match self.open.last_mut() {
            Some(inner) => inner.body.push(stmt),
            None => self.nest.body.push(stmt),
        }
    }

    /// The nest.
    ///
    /// # Panics
    /// When a loop is still open.
    pub fn finish(self) -> Nest {
        assert!(self.open.is_empty(), "every loop should be closed");
        self.nest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::BinaryOp;
    use expect_test::expect;

    #[test]
    fn a_matmul_prints_as_designed() {
        let mut n = NestBuilder::new("matmul_bias_relu");
        let a = n.param(Role::Input, "a", DType::F32, &[512, 256]);
        let b = n.param(Role::Constant, "b", DType::F32, &[256, 384]);
        let bias = n.param(Role::Constant, "bias", DType::F32, &[384]);
        let y = n.param(Role::Output, "y", DType::F32, &[512, 384]);
        let ij = n.open_all(&[("i", 512), ("j", 384)]);
        let acc = n.alloc(Scope::Register, "acc", DType::F32, &[]);
        let zero = n.pool().constant(0.0, DType::F32);
        n.store("init", acc, &[], zero);
        let k = n.open("k", 256);
        let (left, right) = (n.pool().load(a, &[ij[0], k]), n.pool().load(b, &[k, ij[1]]));
        let product = n.pool().mul(left, right);
        n.update("update", acc, &[], Combiner::Add, product);
        n.close(1);
        let (sum, bias) = (n.pool().load(acc, &[]), n.pool().load(bias, &[ij[1]]));
        let sum = n.pool().add(sum, bias);
        let relu = n.pool().binary(BinaryOp::Max, sum, zero);
        n.store("epilogue", y, &ij, relu);
        n.close(2);
        let nest = n.finish();
        expect![[r#"
            nest matmul_bias_relu
              in    a: f32[512, 256]
              const b: f32[256, 384]
              const bias: f32[384]
              out   y: f32[512, 384]
              for i in 512, j in 384:
                register acc: f32
                init: acc = 0.0
                for k in 256:
                  update: acc += a[i, k] * b[k, j]
                epilogue: y[i, j] = max(acc + bias[j], 0.0)
        "#]]
        .assert_eq(&nest.to_string());
        let mut renamed = nest.clone();
        renamed.pool.buffers[a].name = "left".into();
        assert_eq!(nest.structural_hash(), renamed.structural_hash());
        renamed.pool.buffers[a].shape = vec![512, 512];
        assert_ne!(nest.structural_hash(), renamed.structural_hash());
    }
}
