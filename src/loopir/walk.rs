//! Traversals of the statement tree.

use super::{Loop, Nest, Stmt, Store};
use crate::expr::VarId;

impl Nest {
    /// Calls `visit` for every block, in order, preparation first.
    pub fn visit_stores<'a>(&'a self, visit: &mut impl FnMut(&'a Store)) {
        visit_stores(&self.preparation, visit);
        visit_stores(&self.body, visit);
    }

    /// Calls `visit` for every loop of the body, outer before inner, with the loops around it, outermost first.
    pub fn visit_loops<'a>(&'a self, visit: &mut impl FnMut(&'a Loop, &[&'a Loop])) {
        fn walk<'a>(
            stmts: &'a [Stmt],
            around: &mut Vec<&'a Loop>,
            visit: &mut impl FnMut(&'a Loop, &[&'a Loop]),
        ) {
            for stmt in stmts {
                if let Stmt::Loop(inner) = stmt {
                    visit(inner, around);
                    around.push(inner);
                    walk(&inner.body, around, visit);
                    around.pop();
                }
            }
        }
        walk(&self.body, &mut vec![], visit);
    }

    /// The loop that binds `var`.
    pub fn loop_of(&self, var: VarId) -> Option<&Loop> {
        let mut found = None;
        self.visit_loops(&mut |inner, _| {
            if inner.var == var {
                found = Some(inner);
            }
        });
        found
    }

    /// The loops of that name, in order.
    pub fn loops_named(&self, name: &str) -> Vec<VarId> {
        let mut vars = vec![];
        self.visit_loops(&mut |inner, _| {
            if self.pool.vars[inner.var].name == name {
                vars.push(inner.var);
            }
        });
        vars
    }

    /// The block of that name.
    pub fn block(&self, name: &str) -> Option<&Store> {
        let mut found = None;
        self.visit_stores(&mut |store| {
            if store.block == name {
                found = Some(store);
            }
        });
        found
    }

    /// The loops around the block of that name, outermost first; empty where there is none.
    pub fn loops_around(&self, block: &str) -> Vec<VarId> {
        fn walk(stmts: &[Stmt], block: &str, around: &mut Vec<VarId>) -> bool {
            stmts.iter().any(|stmt| match stmt {
                Stmt::Loop(inner) => {
                    around.push(inner.var);
                    let found = walk(&inner.body, block, around);
                    if !found {
                        around.pop();
                    }
                    found
                }
                Stmt::Store(store) => store.block == block,
                Stmt::Alloc(_) | Stmt::Barrier => false,
            })
        }
        let mut around = vec![];
        walk(&self.body, block, &mut around);
        around
    }
}

/// Calls `visit` for every block under `stmts`, in order.
pub fn visit_stores<'a>(stmts: &'a [Stmt], visit: &mut impl FnMut(&'a Store)) {
    for stmt in stmts {
        match stmt {
            Stmt::Loop(inner) => visit_stores(&inner.body, visit),
            Stmt::Store(store) => visit(store),
            Stmt::Alloc(_) | Stmt::Barrier => {}
        }
    }
}

/// Calls `change` for every block under `stmts`, in order.
pub fn change_stores(stmts: &mut [Stmt], change: &mut impl FnMut(&mut Store)) {
    for stmt in stmts {
        match stmt {
            Stmt::Loop(inner) => change_stores(&mut inner.body, change),
            Stmt::Store(store) => change(store),
            Stmt::Alloc(_) | Stmt::Barrier => {}
        }
    }
}

/// The loop that binds `var` under `stmts`, to change it.
pub fn find_loop_mut(stmts: &mut [Stmt], var: VarId) -> Option<&mut Loop> {
    stmts.iter_mut().find_map(|stmt| match stmt {
        Stmt::Loop(inner) => {
            if inner.var == var {
                return Some(inner);
            }
            find_loop_mut(&mut inner.body, var)
        }
        Stmt::Store(_) | Stmt::Alloc(_) | Stmt::Barrier => None,
    })
}

/// Whether the loop of `var` is under `stmts`.
pub fn contains_loop(stmts: &[Stmt], var: VarId) -> bool {
    stmts.iter().any(|stmt| match stmt {
        Stmt::Loop(inner) => inner.var == var || contains_loop(&inner.body, var),
        Stmt::Store(_) | Stmt::Alloc(_) | Stmt::Barrier => false,
    })
}

/// Replaces the loop that binds `var` by what `replace` makes of it; false where there is none.
pub fn replace_loop(stmts: &mut Vec<Stmt>, var: VarId, replace: &mut impl FnMut(Loop) -> Vec<Stmt>) -> bool {
    for place in 0..stmts.len() {
        match &mut stmts[place] {
            Stmt::Loop(inner) if inner.var == var => {
                let Stmt::Loop(taken) = stmts.remove(place) else { return false };
                stmts.splice(place..place, replace(taken));
                return true;
            }
            Stmt::Loop(inner) => {
                if replace_loop(&mut inner.body, var, replace) {
                    return true;
                }
            }
            Stmt::Store(_) | Stmt::Alloc(_) | Stmt::Barrier => {}
        }
    }
    false
}
