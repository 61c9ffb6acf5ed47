//! The order of statements: loops whose iterations go side by side are distributed over the parts of their bodies.

use crate::loopir::{BufferId, Loop, LoopKind, Stmt, Store};

/// A statement, with loops in the order in which they run.
pub(super) enum Step<'a> {
    Loop(&'a Loop, Vec<Step<'a>>),
    Store(&'a Store),
    Alloc(BufferId),
    Barrier,
}

/// The statements in the order of the language: one part of an invocation loop between barriers for all invocations, one
/// statement of a vector loop for all lanes.
pub(super) fn order(stmts: &[Stmt]) -> Vec<Step<'_>> {
    stmts.iter().map(order_stmt).collect::<Vec<_>>().into_iter().flatten().collect()
}

fn order_stmt(stmt: &Stmt) -> Vec<Step<'_>> {
    match stmt {
        Stmt::Store(store) => vec![Step::Store(store)],
        Stmt::Alloc(id) => vec![Step::Alloc(*id)],
        Stmt::Barrier => vec![Step::Barrier],
        Stmt::Loop(inner) => match inner.kind {
            LoopKind::Vector if !matches!(inner.body.as_slice(), [Stmt::Store(_)]) => {
                by_statement(&inner.body, &[inner])
            }
            LoopKind::Invocation(_) if has_barrier(&inner.body) => by_phase(&inner.body, &[inner]),
            LoopKind::Serial
            | LoopKind::Parallel
            | LoopKind::Vector
            | LoopKind::Unroll
            | LoopKind::Workgroup(_)
            | LoopKind::Invocation(_) => vec![Step::Loop(inner, order(&inner.body))],
        },
    }
}

fn has_barrier(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|stmt| match stmt {
        Stmt::Loop(inner) => has_barrier(&inner.body),
        Stmt::Barrier => true,
        Stmt::Store(_) | Stmt::Alloc(_) => false,
    })
}

/// `steps` inside of all the `lanes`.
fn inside<'a>(lanes: &[&'a Loop], steps: Vec<Step<'a>>) -> Vec<Step<'a>> {
    lanes.iter().rev().fold(steps, |steps, lane| vec![Step::Loop(lane, steps)])
}

/// The body of the invocation loops `lanes`, which contains a barrier: they are closed and opened again around it.
fn by_phase<'a>(stmts: &'a [Stmt], lanes: &[&'a Loop]) -> Vec<Step<'a>> {
    let mut done = vec![];
    let mut part = vec![];
    for stmt in stmts {
        if !has_barrier(std::slice::from_ref(stmt)) {
            part.extend(order_stmt(stmt));
            continue;
        }
        if !part.is_empty() {
            done.extend(inside(lanes, std::mem::take(&mut part)));
        }
        match stmt {
            Stmt::Barrier => done.push(Step::Barrier),
            Stmt::Loop(inner) => match inner.kind {
                LoopKind::Invocation(_) => done.extend(by_phase(&inner.body, &[lanes, &[inner]].concat())),
                LoopKind::Serial
                | LoopKind::Parallel
                | LoopKind::Vector
                | LoopKind::Unroll
                | LoopKind::Workgroup(_) => done.push(Step::Loop(inner, by_phase(&inner.body, lanes))),
            },
            Stmt::Store(_) | Stmt::Alloc(_) => {}
        }
    }
    if !part.is_empty() {
        done.extend(inside(lanes, part));
    }
    done
}

/// The body of the vector loops `lanes`: they go around each statement of it.
fn by_statement<'a>(stmts: &'a [Stmt], lanes: &[&'a Loop]) -> Vec<Step<'a>> {
    let mut done = vec![];
    for stmt in stmts {
        match stmt {
            Stmt::Store(store) => done.extend(inside(lanes, vec![Step::Store(store)])),
            Stmt::Alloc(id) => done.extend(inside(lanes, vec![Step::Alloc(*id)])),
            Stmt::Barrier => done.push(Step::Barrier),
            Stmt::Loop(inner) if inner.kind == LoopKind::Vector => {
                done.extend(by_statement(&inner.body, &[lanes, &[inner]].concat()));
            }
            Stmt::Loop(inner) => done.push(Step::Loop(inner, by_statement(&inner.body, lanes))),
        }
    }
    done
}
