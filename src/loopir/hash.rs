//! The structural hash.

use super::{BufferId, Nest, Stmt, VarId};
use std::fmt;

/// Equal for nests that differ in names alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NestHash([u8; 16]);

impl fmt::Display for NestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Nest {
    /// The hash of the nest's text with buffers, loops and blocks renamed in the order in which the text mentions them first.
    pub fn structural_hash(&self) -> NestHash {
        let mut renamed = self.clone();
        renamed.name = String::new();
        let mut order = Order::default();
        order.buffers.extend(&self.params);
        order.collect(&self.preparation);
        order.collect(&self.body);
        for (place, &id) in order.buffers.iter().enumerate() {
            renamed.pool.buffers[id].name = format!("b{place}");
        }
        for (place, &id) in order.vars.iter().enumerate() {
            renamed.pool.vars[id].name = format!("v{place}");
        }
        let mut block = 0;
        let mut rename = |store: &mut super::Store| {
            store.block = format!("s{block}");
            block += 1;
        };
        super::walk::change_stores(&mut renamed.preparation, &mut rename);
        super::walk::change_stores(&mut renamed.body, &mut rename);
        let digest = blake3::hash(renamed.to_string().as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        NestHash(bytes)
    }
}

/// Buffers and loops as the text declares them.
#[derive(Default)]
struct Order {
    buffers: Vec<BufferId>,
    vars: Vec<VarId>,
}

impl Order {
    fn collect(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            match stmt {
                Stmt::Loop(inner) => {
                    self.vars.push(inner.var);
                    self.collect(&inner.body);
                }
                Stmt::Alloc(id) => self.buffers.push(*id),
                Stmt::Store(_) | Stmt::Barrier => {}
            }
        }
    }
}
