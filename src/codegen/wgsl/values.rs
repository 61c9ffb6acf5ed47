//! Expressions as text. What is used twice, and what a loop around does not change, gets a name by `let`.

use super::WgslError;
use super::expand::{FlatStore, Step};
use super::layout::{self, Place};
use super::ops::{Fragment, Level, OpWriter, is_wide_unary, value_type};
use super::writer::{Named, Writer};
use crate::expr::{Affine, BinaryOp, BufferId, Expr, ExprId, UnaryOp, VarId};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The components of a `vec4`.
const COMPONENTS: [&str; 4] = ["x", "y", "z", "w"];

/// The variables and buffers an expression depends on.
#[derive(Debug, Default)]
pub(super) struct Uses {
    vars: BTreeSet<VarId>,
    buffers: BTreeSet<BufferId>,
}

/// A text and whether it is a `vec4`.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) fragment: Fragment,
    pub(super) wide: bool,
}

impl Value {
    fn scalar(fragment: Fragment) -> Value {
        Value { fragment, wide: false }
    }

    fn wide(fragment: Fragment) -> Value {
        Value { fragment, wide: true }
    }

    /// A `vec4` of values of `dtype`.
    pub(super) fn components(parts: &[Fragment], dtype: DType) -> Fragment {
        let arguments: Vec<String> = parts.iter().map(Fragment::argument).collect();
        Fragment::primary(format!("vec4<{}>({})", type_name(dtype), arguments.join(", ")))
    }
}

fn type_name(dtype: DType) -> &'static str {
    value_type(dtype).expect("types should have been checked")
}

impl Writer {
    fn ops(&mut self) -> OpWriter<'_> {
        OpWriter { helpers: &mut self.helpers }
    }

    fn undefined(&self, op: &'static str, dtype: DType) -> WgslError {
        WgslError::Operation { nest: self.nest.clone(), op, dtype }
    }

    pub(super) fn binary(
        &mut self,
        op: BinaryOp,
        dtype: DType,
        a: &Fragment,
        b: &Fragment,
    ) -> Result<Fragment, WgslError> {
        let value = self.ops().binary(op, dtype, a, b);
        value.ok_or_else(|| self.undefined(op.name(), dtype))
    }

    /// What an expression depends on.
    fn uses(&mut self, id: ExprId) -> Rc<Uses> {
        if let Some(known) = self.expr_uses.get(&id) {
            return Rc::clone(known);
        }
        let mut uses = Uses::default();
        uses.vars.extend(self.pool.as_var(id));
        if let Expr::Load(buffer, _) = self.pool.get(id) {
            uses.buffers.insert(*buffer);
        }
        for operand in self.pool.operands(id) {
            let of_operand = self.uses(operand);
            uses.vars.extend(&of_operand.vars);
            uses.buffers.extend(&of_operand.buffers);
        }
        let uses = Rc::new(uses);
        self.expr_uses.insert(id, Rc::clone(&uses));
        uses
    }

    fn uses_lane(&mut self, id: ExprId) -> bool {
        let lane = self.lane;
        self.uses(id).vars.contains(&lane)
    }

    /// The affine form of an index.
    fn form(&mut self, id: ExprId) -> Rc<Affine> {
        if let Some(known) = self.forms.get(&id) {
            return Rc::clone(known);
        }
        let form = Rc::new(self.pool.affine(id));
        self.forms.insert(id, Rc::clone(&form));
        form
    }

    fn named(&self, id: ExprId) -> Option<&Named> {
        self.scopes.iter().rev().find_map(|scope| scope.named.get(&id))
    }

    /// The innermost block that binds a variable of the expression; the current one where it reads memory.
    fn level(&mut self, id: ExprId) -> usize {
        let uses = self.uses(id);
        if !uses.buffers.is_empty() {
            return self.target;
        }
        let levels = uses.vars.iter().filter_map(|var| self.var_levels.get(var));
        levels.copied().max().unwrap_or(0).min(self.target)
    }

    /// Whether a loop is between a block and the one that is written to.
    fn loop_between(&self, level: usize) -> bool {
        self.scopes[level + 1..=self.target].iter().any(|scope| scope.is_loop)
    }

    /// Names a text in the block of that level.
    fn bind(&mut self, id: ExprId, value: &Value, level: usize) -> Fragment {
        let reads = self.uses(id).buffers.iter().copied().collect();
        let base = match self.pool.get(id) {
            Expr::Load(buffer, _) => format!("{}_at", self.buffer_names[buffer]),
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => match self.pool.dtype(id) {
                DType::Bool => "holds".to_string(),
                DType::I64 => "at".to_string(),
                DType::F16
                | DType::BF16
                | DType::F32
                | DType::F64
                | DType::I8
                | DType::I16
                | DType::I32
                | DType::U8
                | DType::U16
                | DType::U32
                | DType::U64 => "t".to_string(),
            },
        };
        let name = self.names.fresh(&base);
        let scope = &mut self.scopes[level];
        scope.lines.push(format!("let {name} = {};", value.fragment.text));
        scope.named.insert(id, Named { name: name.clone(), wide: value.wide, reads });
        Fragment::primary(name)
    }

    /// Names a text in the block that is written to, unless it is a name.
    pub(super) fn temporary(&mut self, base: &str, value: &Fragment) -> String {
        if value.text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && value.text.starts_with(|c: char| c.is_ascii_alphabetic())
        {
            return value.text.clone();
        }
        let name = self.names.fresh(base);
        self.scopes[self.target].lines.push(format!("let {name} = {};", value.text));
        name
    }

    /// Counts the uses of expressions by consecutive stores.
    pub(super) fn count(&mut self, steps: &[Step]) {
        self.counts.clear();
        // A condition is tested once for all stores that have it.
        let mut tested = BTreeSet::new();
        for step in steps {
            match step {
                Step::Store(FlatStore { buffer, index, value, conditions, .. }) => {
                    for &condition in conditions {
                        if tested.insert(condition) {
                            self.count_use(condition);
                        }
                    }
                    self.count_use(*value);
                    for part in self.load_parts(*buffer, *index) {
                        self.count_use(part);
                    }
                }
                Step::Declare(_)
                | Step::For { .. }
                | Step::Scope(_)
                | Step::Region { .. }
                | Step::Barrier => {}
            }
        }
        self.share_loads();
    }

    fn count_use(&mut self, id: ExprId) {
        let uses = self.counts.entry(id).or_insert(0);
        *uses += 1;
        if *uses > 1 {
            return;
        }
        let parts = match self.pool.get(id).clone() {
            _ if self.is_by_lanes(id) => self.lanes(id),
            Expr::Load(buffer, index) => match self.whole_of(buffer, index[0]) {
                Some((whole, _)) => vec![whole],
                None => self.load_parts(buffer, index[0]),
            },
            _ if self.pool.is_index_operation(id) => {
                let mut form = Affine::clone(&self.form(id));
                let has_constant = std::mem::take(&mut form.constant) != 0;
                let base = self.pool.from_affine(&form);
                if has_constant && base != id {
                    vec![base]
                } else if form.terms.len() == 1 && form.terms.contains_key(&id) {
                    self.pool.operands(id).to_vec()
                } else {
                    form.terms.keys().copied().collect()
                }
            }
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => self.pool.operands(id).to_vec(),
        };
        for part in parts {
            self.count_use(part);
        }
    }

    /// Whether an expression that differs by lane is written as one text for each: a load of elements that are no `vec4`, a
    /// choice by the lane's number. The lanes of several such expressions often have parts in common.
    fn is_by_lanes(&mut self, id: ExprId) -> bool {
        if !self.uses_lane(id) {
            return false;
        }
        match self.pool.get(id).clone() {
            Expr::Load(buffer, index) => {
                let wide = self.layouts[&buffer].wide;
                !(wide && matches!(layout::place(&mut self.pool, index[0], self.lane), Some(Place::Whole(_))))
            }
            Expr::Select(condition, ..) => {
                self.uses_lane(condition) && self.pool.loads_of(condition).is_empty()
            }
            Expr::Int(..)
            | Expr::Float(..)
            | Expr::Var(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => false,
        }
    }

    /// The four values of an expression.
    fn lanes(&mut self, id: ExprId) -> Vec<ExprId> {
        (0..4).map(|number| layout::store_index(&mut self.pool, id, self.lane, number)).collect()
    }

    /// The load of the `vec4` of which a load in memory is one component, and the component.
    fn whole_of(&mut self, buffer: BufferId, index: ExprId) -> Option<(ExprId, usize)> {
        let layout = self.layouts[&buffer];
        if !layout.wide || layout.variables {
            return None;
        }
        match layout::place(&mut self.pool, index, self.lane)? {
            Place::Whole(_) => None,
            Place::Component(quarter, component) => {
                let first = self.pool.mul_int(quarter, 4);
                let lane = self.pool.var(self.lane);
                let index = self.pool.add(first, lane);
                let index = self.pool.simplify(index);
                Some((self.pool.load(buffer, &[index]), component))
            }
        }
    }

    /// The index that an access of a buffer evaluates; none for a variable.
    fn load_parts(&mut self, buffer: BufferId, index: ExprId) -> Vec<ExprId> {
        let layout = self.layouts[&buffer];
        if layout.variables {
            return vec![];
        }
        let place = if layout.wide { layout::place(&mut self.pool, index, self.lane) } else { None };
        match place {
            Some(Place::Whole(quarter) | Place::Component(quarter, _)) => vec![quarter],
            None => vec![index],
        }
    }

    /// The text of an expression: a name where it has or deserves one.
    pub(super) fn value(&mut self, id: ExprId) -> Result<Value, WgslError> {
        if let Some(named) = self.named(id) {
            return Ok(Value { fragment: Fragment::primary(named.name.clone()), wide: named.wide });
        }
        let wide = self.uses_lane(id);
        match *self.pool.get(id) {
            Expr::Int(value, dtype) => return Ok(Value::scalar(OpWriter::integer(value, dtype))),
            Expr::Float(bits, dtype) => {
                return Ok(Value::scalar(self.ops().literal(f64::from_bits(bits), dtype)));
            }
            Expr::Var(var) if !wide => return Ok(Value::scalar(self.variable(var))),
            Expr::Load(buffer, ..) if !wide && self.layouts[&buffer].variables => return self.build(id),
            Expr::Var(_)
            | Expr::Load(..)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Guard(..)
            | Expr::Cast(..) => {}
        }
        if self.pool.is_index_operation(id) && !wide {
            let form = self.form(id);
            return Ok(Value::scalar(self.sum(&form)?));
        }
        let level = self.level(id);
        let shared = self.counts.get(&id).is_some_and(|&uses| uses > 1);
        if !shared && !self.loop_between(level) {
            return self.build(id);
        }
        let outer = std::mem::replace(&mut self.target, level);
        let value = self.build(id);
        self.target = outer;
        let value = value?;
        if value.fragment.level == Level::Primary && is_name(&value.fragment.text) {
            return Ok(value);
        }
        Ok(Value { fragment: self.bind(id, &value, level), wide: value.wide })
    }

    fn variable(&self, var: VarId) -> Fragment {
        Fragment::primary(self.var_names.get(&var).expect("a variable should be bound before its use"))
    }

    /// The text of a node over the texts of its operands.
    fn build(&mut self, id: ExprId) -> Result<Value, WgslError> {
        let dtype = self.pool.dtype(id);
        if self.is_by_lanes(id) {
            return self.by_lanes(id);
        }
        match self.pool.get(id).clone() {
            Expr::Int(..) | Expr::Float(..) => self.value(id),
            Expr::Var(_) => self.by_lanes(id),
            Expr::Load(buffer, index) => match self.shared_load(id) {
                Some((all, lane)) => {
                    let all = self.value(all)?;
                    let text = format!("subgroupBroadcast({}, {lane}u)", all.fragment.text);
                    Ok(Value { fragment: Fragment::primary(text), wide: all.wide })
                }
                None => self.load(buffer, index[0]),
            },
            _ if self.pool.is_index_operation(id) => self.by_lanes(id),
            Expr::Unary(op, a) => {
                let of = self.pool.dtype(a);
                let a = self.value(a)?;
                let undefined = self.undefined(op.name(), of);
                if !a.wide || is_wide_unary(op, of) {
                    let text = self.ops().unary(op, of, &a.fragment).ok_or(undefined)?;
                    return Ok(Value { fragment: text, wide: a.wide });
                }
                self.each(&[a], dtype, |writer, x| writer.ops().unary(op, of, &x[0]).ok_or(undefined.clone()))
            }
            Expr::Binary(op, a, b) => self.build_binary(op, a, b, dtype),
            // A condition on the lane often folds once the lane is known, and a load below it is a gather anyway.
            Expr::Select(c, ..) if self.uses_lane(c) => self.by_lanes(id),
            Expr::Select(c, a, b) => {
                let (c, a, b) = (self.value(c)?, self.value(a)?, self.value(b)?);
                let wide = a.wide || b.wide || c.wide;
                if dtype == DType::Bool && wide {
                    return self.each(&[c, a, b], dtype, |_, x| Ok(select(&x[0], &x[1], &x[2])));
                }
                let (a, b) = if wide {
                    (self.splat(a, dtype), self.splat(b, dtype))
                } else {
                    (a.fragment, b.fragment)
                };
                Ok(Value { fragment: select(&c.fragment, &a, &b), wide })
            }
            // Lowering leaves no guard.
            Expr::Guard(c, a) => {
                let zero = self.pool.constant(0.0, dtype);
                let select = self.pool.select(c, a, zero);
                self.value(select)
            }
            Expr::Cast(to, a) => {
                let from = self.pool.dtype(a);
                let a = self.value(a)?;
                let undefined = self.undefined("cast", from);
                let full_width = !matches!(to, DType::I8 | DType::I16 | DType::U8 | DType::U16 | DType::Bool);
                if a.wide && full_width {
                    let text = format!("vec4<{}>({})", type_name(to), a.fragment.argument());
                    return Ok(Value::wide(Fragment::primary(text)));
                }
                if !a.wide {
                    return Ok(Value::scalar(OpWriter::cast(from, to, &a.fragment).ok_or(undefined)?));
                }
                self.each(&[a], dtype, |_, x| OpWriter::cast(from, to, &x[0]).ok_or(undefined.clone()))
            }
        }
    }

    fn build_binary(&mut self, op: BinaryOp, a: ExprId, b: ExprId, dtype: DType) -> Result<Value, WgslError> {
        let of = self.pool.dtype(a);
        if let Some(power) = self.small_power(op, a, b)? {
            return Ok(power);
        }
        let (a, b) = (self.value(a)?, self.value(b)?);
        if !a.wide && !b.wide {
            return Ok(Value::scalar(self.binary(op, of, &a.fragment, &b.fragment)?));
        }
        if !is_wide_binary(op, of) {
            return self.each(&[a, b], dtype, |writer, x| writer.binary(op, of, &x[0], &x[1]));
        }
        // Arithmetic takes a scalar beside a vector; functions and comparisons do not.
        let mixes = matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div);
        let (a, b) = if mixes { (a.fragment, b.fragment) } else { (self.splat(a, of), self.splat(b, of)) };
        Ok(Value::wide(self.binary(op, of, &a, &b)?))
    }

    /// Powers that need no function: a constant exponent of 1, 2, 3, 0.5 or -1.
    fn small_power(&mut self, op: BinaryOp, a: ExprId, b: ExprId) -> Result<Option<Value>, WgslError> {
        let Expr::Float(bits, dtype) = *self.pool.get(b) else { return Ok(None) };
        let exponent = f64::from_bits(bits);
        if op != BinaryOp::Pow || ![1.0, 2.0, 3.0, 0.5, -1.0].contains(&exponent) {
            return Ok(None);
        }
        let base = self.value(a)?;
        let wide = base.wide;
        let text = if exponent == 1.0 {
            base.fragment
        } else if exponent == 0.5 {
            if wide && dtype == DType::F16 {
                return Ok(None);
            }
            self.ops().unary(UnaryOp::Sqrt, dtype, &base.fragment).expect("floats should have a root")
        } else if exponent == -1.0 {
            let one = self.ops().literal(1.0, dtype);
            self.binary(BinaryOp::Div, dtype, &one, &base.fragment)?
        } else {
            let name = Fragment::primary(self.temporary("t", &base.fragment));
            let square = self.binary(BinaryOp::Mul, dtype, &name, &name)?;
            if exponent == 2.0 { square } else { self.binary(BinaryOp::Mul, dtype, &square, &name)? }
        };
        Ok(Some(Value { fragment: text, wide }))
    }

    /// A scalar four times.
    pub(super) fn splat(&mut self, value: Value, dtype: DType) -> Fragment {
        if value.wide {
            return value.fragment;
        }
        Fragment::primary(format!("vec4<{}>({})", type_name(dtype), value.fragment.argument()))
    }

    /// The four texts of an operation on the components of operands, which are names where they are wide.
    pub(super) fn by_components(
        &mut self,
        operands: &[(&str, bool)],
        mut text: impl FnMut(&mut Writer, &[Fragment]) -> Result<Fragment, WgslError>,
    ) -> Result<Vec<Fragment>, WgslError> {
        COMPONENTS
            .iter()
            .map(|component| {
                let parts: Vec<Fragment> = operands
                    .iter()
                    .map(|(name, wide)| {
                        Fragment::primary(if *wide {
                            format!("{name}.{component}")
                        } else {
                            (*name).to_string()
                        })
                    })
                    .collect();
                text(self, &parts)
            })
            .collect()
    }

    /// An operation without a form on vectors, on each component.
    fn each(
        &mut self,
        operands: &[Value],
        dtype: DType,
        text: impl FnMut(&mut Writer, &[Fragment]) -> Result<Fragment, WgslError>,
    ) -> Result<Value, WgslError> {
        let names: Vec<(String, bool)> = operands
            .iter()
            .map(|operand| {
                let name = if operand.wide {
                    self.temporary("t", &operand.fragment)
                } else {
                    operand.fragment.at(Level::Unary)
                };
                (name, operand.wide)
            })
            .collect();
        let names: Vec<(&str, bool)> = names.iter().map(|(name, wide)| (name.as_str(), *wide)).collect();
        let parts = self.by_components(&names, text)?;
        Ok(Value::wide(Value::components(&parts, dtype)))
    }

    /// The expression's value for each lane.
    fn by_lanes(&mut self, id: ExprId) -> Result<Value, WgslError> {
        let dtype = self.pool.dtype(id);
        let mut parts = vec![];
        for lane in self.lanes(id) {
            parts.push(self.value(lane)?.fragment);
        }
        Ok(Value::wide(Value::components(&parts, dtype)))
    }

    fn load(&mut self, buffer: BufferId, index: ExprId) -> Result<Value, WgslError> {
        let dtype = self.pool.buffers[buffer].dtype;
        if let Some(text) = self.wide_reference(buffer, index)? {
            return Ok(Value::wide(self.loaded(Fragment::primary(text), dtype, true)));
        }
        if let Some((whole, component)) = self.whole_of(buffer, index) {
            let shared = self.counts.get(&whole).is_some_and(|&uses| uses > 1);
            if shared || self.named(whole).is_some() || self.shared_load(whole).is_some() {
                let whole = self.value(whole)?.fragment;
                let text = format!("{}.{}", whole.at(Level::Primary), COMPONENTS[component]);
                return Ok(Value::scalar(Fragment::primary(text)));
            }
        }
        let text = self.reference(buffer, index)?;
        Ok(Value::scalar(self.loaded(Fragment::primary(text), dtype, false)))
    }

    /// A stored element as a value of its type.
    pub(super) fn loaded(&mut self, element: Fragment, dtype: DType, wide: bool) -> Fragment {
        if dtype != DType::Bool {
            return element;
        }
        let zero = if wide { "vec4<u32>(0u)" } else { "0u" };
        Fragment::new(format!("{} != {zero}", element.text), Level::Compare)
    }

    /// The element of a buffer at a scalar index.
    pub(super) fn reference(&mut self, buffer: BufferId, index: ExprId) -> Result<String, WgslError> {
        let layout = self.layouts[&buffer];
        if layout.variables {
            let flat = self.pool.as_int(index).and_then(|value| usize::try_from(value).ok());
            let flat = flat.expect("indices of variables should be constant");
            return Ok(if layout.wide {
                format!("{}.{}", self.variable_name(buffer, flat / 4 * 4), COMPONENTS[flat % 4])
            } else {
                self.variable_name(buffer, flat)
            });
        }
        let name = self.buffer_names[&buffer].clone();
        if layout.wide
            && let Some(Place::Component(quarter, component)) =
                layout::place(&mut self.pool, index, self.lane)
        {
            let quarter = self.value(quarter)?.fragment.text;
            return Ok(format!("{name}[{quarter}].{}", COMPONENTS[component]));
        }
        let index = self.value(index)?.fragment.text;
        Ok(format!("{name}[{index}]"))
    }

    /// The `vec4` of a buffer that the lanes of an index are, if they are one.
    pub(super) fn wide_reference(
        &mut self,
        buffer: BufferId,
        index: ExprId,
    ) -> Result<Option<String>, WgslError> {
        let layout = self.layouts[&buffer];
        if !layout.wide {
            return Ok(None);
        }
        let Some(Place::Whole(quarter)) = layout::place(&mut self.pool, index, self.lane) else {
            return Ok(None);
        };
        if layout.variables {
            let Expr::Int(quarter, _) = *self.pool.get(quarter) else { return Ok(None) };
            let first = usize::try_from(4 * quarter).expect("indices of variables should be in range");
            return Ok(Some(self.variable_name(buffer, first)));
        }
        let quarter = self.value(quarter)?.fragment.text;
        Ok(Some(format!("{}[{quarter}]", self.buffer_names[&buffer])))
    }

    /// The text of an affine form. Sums that outer loops fix are named there.
    fn sum(&mut self, form: &Affine) -> Result<Fragment, WgslError> {
        let mut by_level: BTreeMap<usize, Vec<(ExprId, i64)>> = BTreeMap::new();
        for (&atom, &coefficient) in &form.terms {
            by_level.entry(self.level(atom)).or_default().push((atom, coefficient));
        }
        let last_level = by_level.keys().next_back().copied();
        let mut total = Affine::default();
        let mut text: Option<Fragment> = None;
        for (level, terms) in by_level {
            for &(atom, coefficient) in &terms {
                total.add_term(atom, coefficient);
            }
            let id = self.pool.from_affine(&total);
            if let Some(named) = self.named(id) {
                text = Some(Fragment::primary(named.name.clone()));
                continue;
            }
            let is_atom = total.terms.len() == 1 && total.terms.values().all(|&c| c == 1);
            let shared = Some(level) == last_level && self.counts.get(&id).is_some_and(|&uses| uses > 1);
            let bound = !is_atom && (shared || self.loop_between(level));
            let outer = self.target;
            if bound {
                self.target = level;
            }
            let summed = self.add_terms(text, &terms);
            self.target = outer;
            let summed = summed?;
            text = Some(if bound { self.bind(id, &Value::scalar(summed), level) } else { summed });
        }
        let constant = OpWriter::integer(form.constant, DType::I64);
        Ok(match text {
            None => constant,
            Some(text) if form.constant == 0 => text,
            Some(text) if form.constant < 0 => {
                let positive = OpWriter::integer(form.constant.saturating_neg(), DType::I64);
                self.binary(BinaryOp::Sub, DType::I64, &text, &positive)?
            }
            Some(text) => self.binary(BinaryOp::Add, DType::I64, &text, &constant)?,
        })
    }

    fn add_terms(&mut self, start: Option<Fragment>, terms: &[(ExprId, i64)]) -> Result<Fragment, WgslError> {
        let mut text = start;
        for &(atom, coefficient) in terms {
            let atom = self.atom(atom)?;
            let subtract = text.is_some() && coefficient < 0;
            let factor = if subtract { coefficient.saturating_neg() } else { coefficient };
            let term = match factor {
                1 => atom,
                factor => {
                    let factor = OpWriter::integer(factor, DType::I64);
                    self.binary(BinaryOp::Mul, DType::I64, &atom, &factor)?
                }
            };
            let op = if subtract { BinaryOp::Sub } else { BinaryOp::Add };
            text = Some(match text {
                None => term,
                Some(text) => self.binary(op, DType::I64, &text, &term)?,
            });
        }
        Ok(text.unwrap_or_else(|| OpWriter::integer(0, DType::I64)))
    }

    /// The text of what an affine form takes as a whole.
    fn atom(&mut self, id: ExprId) -> Result<Fragment, WgslError> {
        if let Some(named) = self.named(id) {
            return Ok(Fragment::primary(named.name.clone()));
        }
        if !self.pool.is_index_operation(id) {
            return Ok(self.value(id)?.fragment);
        }
        let level = self.level(id);
        let shared = self.counts.get(&id).is_some_and(|&uses| uses > 1);
        let bound = shared || self.loop_between(level);
        let outer = self.target;
        if bound {
            self.target = level;
        }
        let text = self.index_operation(id);
        self.target = outer;
        let text = text?;
        Ok(if bound { self.bind(id, &Value::scalar(text), level) } else { text })
    }

    /// A product, quotient or rest of indices.
    fn index_operation(&mut self, id: ExprId) -> Result<Fragment, WgslError> {
        let Expr::Binary(op, a, b) = *self.pool.get(id) else { return Ok(self.value(id)?.fragment) };
        let divisor = self.pool.as_int(b).filter(|divisor| (1..=i64::from(i32::MAX)).contains(divisor));
        let negative = self.pool.interval(a).is_none_or(|range| range.low < 0);
        let x = self.value(a)?.fragment;
        match (op, divisor) {
            (BinaryOp::FloorDiv, Some(divisor)) => Ok(self.ops().divide_index(&x, divisor, negative)),
            (BinaryOp::Mod, Some(divisor)) => Ok(self.ops().index_rest(&x, divisor, negative)),
            (op, _) => {
                let y = self.value(b)?.fragment;
                self.binary(op, DType::I64, &x, &y)
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn select(condition: &Fragment, a: &Fragment, b: &Fragment) -> Fragment {
    Fragment::primary(format!("select({}, {}, {})", b.argument(), a.argument(), condition.argument()))
}

/// Whether the text of the operation on `vec4`s is that on scalars.
fn is_wide_binary(op: BinaryOp, dtype: DType) -> bool {
    let full_integer = matches!(dtype, DType::I32 | DType::I64 | DType::U32);
    match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => dtype.is_float() || full_integer,
        BinaryOp::Div | BinaryOp::FloorDiv => dtype.is_float(),
        BinaryOp::Min | BinaryOp::Max => dtype != DType::Bool,
        BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => full_integer,
        BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => {
            dtype != DType::Bool
        }
        BinaryOp::Mod | BinaryOp::Rem | BinaryOp::Pow | BinaryOp::Shl | BinaryOp::Shr => false,
    }
}
