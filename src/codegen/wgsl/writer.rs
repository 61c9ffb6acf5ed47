//! The text of a kernel.

use super::broadcast::Subgroups;
use super::expand::{Expanded, FlatStore, Step, expand};
use super::grid::{Grid, limit};
use super::layout::{self, Layout, visit_stores};
use super::names::{Names, sanitised};
use super::ops::{Fragment, HELPERS};
use super::values::{self, Value};
use super::window::binding_limit;
use super::{
    Access, Binding, MAX_ARRAY_BYTES, MAX_PRIVATE_BYTES, WgslError, WgslKernel, access_of, storage_type,
};
use crate::base::round_up;
use crate::expr::{Affine, BufferId, Expr, ExprId, ExprPool, Scope, VarId};
use crate::loopir::{Combiner, Nest};
use crate::target::GpuTarget;
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// The parameter for an invocation's number in its subgroup.
const LANE_ID: &str = "lane_id";
/// The names of the axes of `group_id` and `local_id`.
const AXES: [&str; 3] = ["x", "y", "z"];

/// Writes the kernel of a grid; `None` where it has no statement left.
pub(super) fn write_kernel(
    nest: &Nest,
    grid: &Grid,
    target: &GpuTarget,
) -> Result<Option<WgslKernel>, WgslError> {
    let Expanded { mut pool, mut steps, lane, bounds_proved } = expand(nest, grid)?;
    let layouts = layout::choose(&mut pool, &mut steps, lane);
    if layouts.is_empty() {
        return Ok(None);
    }
    let (mut written, mut read) = (BTreeSet::new(), BTreeSet::new());
    visit_stores(&steps, &mut |store| {
        written.insert(store.buffer);
        if store.combine.is_some() {
            read.insert(store.buffer);
        }
        for load in store.roots().flat_map(|root| pool.loads_of(root)) {
            if let Expr::Load(buffer, _) = pool.get(load) {
                read.insert(*buffer);
            }
        }
    });
    let shares_global = written.intersection(&read).any(|&id| pool.buffers[id].scope == Scope::Global);
    let uses = Uses::of(nest, &pool, &steps, &layouts)?;
    if uses.f16 && !target.features.f16 {
        return Err(WgslError::Feature { nest: nest.name.clone(), feature: "f16" });
    }
    let workgroup_memory_bytes = uses.check_limits(nest, &pool, target)?;
    let allowed = u64::from(target.limits.max_loop_iterations);
    limit(nest, "max_loop_iterations", iterations(&steps), allowed)?;

    let subgroups = Subgroups::of(&mut pool, grid, target);
    let mut names = Names::new();
    let order: Vec<BufferId> = uses.bindings.iter().chain(&uses.workgroup).copied().collect();
    let mut buffer_names: BTreeMap<BufferId, String> =
        order.iter().map(|&id| (id, names.fresh(&pool.buffers[id].name))).collect();
    for &id in layouts.keys() {
        buffer_names.entry(id).or_insert_with(|| names.fresh(&pool.buffers[id].name));
    }
    let mut writer = Writer {
        nest: nest.name.clone(),
        pool,
        lane,
        layouts,
        written,
        buffer_names,
        names,
        var_names: HashMap::new(),
        var_levels: HashMap::new(),
        scopes: vec![BlockScope::new(false)],
        target: 0,
        counts: HashMap::new(),
        expr_uses: HashMap::new(),
        forms: HashMap::new(),
        helpers: BTreeSet::new(),
        has_invocations: grid.has_invocations,
        shares_global,
        subgroups,
    };
    writer.grid_variables(grid);
    writer.steps(&steps, &[], false)?;
    let body = writer.scopes.pop().map(|scope| scope.lines).unwrap_or_default();

    let header = writer.header(&uses);
    let render = |name: &str| module(&header, name, grid, &body);
    let hash = blake3::hash(render("kernel").as_bytes()).to_hex();
    let name = format!("{}_{}", sanitised(&nest.name), &hash.as_str()[..8]);
    let bindings = uses
        .bindings
        .iter()
        .map(|&id| {
            let buffer = &writer.pool.buffers[id];
            let stored = storage_type(buffer.dtype).expect("types should have been checked");
            Binding {
                buffer: id,
                name: buffer.name.clone(),
                access: access_of(buffer.role),
                written: writer.written.contains(&id),
                stored,
                offset_bytes: 0,
                bytes: (buffer.storage_len().max(1) * stored.size_bytes()) as u64,
            }
        })
        .collect();
    Ok(Some(WgslKernel {
        text: render(&name),
        name,
        bindings,
        workgroups: grid.workgroups,
        workgroup_size: grid.workgroup_size,
        workgroup_memory_bytes,
        f16: uses.f16,
        bounds_proved,
    }))
}

/// The module of a header and the lines of the entry point.
fn module(header: &str, name: &str, grid: &Grid, body: &[String]) -> String {
    let [x, y, z] = grid.workgroup_size;
    let mentions = |word: &str| body.iter().any(|line| line.contains(word));
    let builtins: Vec<String> = [
        ("group_id", "workgroup_id", "vec3<u32>"),
        ("local_id", "local_invocation_id", "vec3<u32>"),
        (LANE_ID, "subgroup_invocation_id", "u32"),
    ]
    .into_iter()
    .filter(|(parameter, ..)| mentions(parameter))
    .map(|(parameter, builtin, dtype)| format!("@builtin({builtin}) {parameter}: {dtype}"))
    .collect();
    let mut text = header.to_string();
    text += &format!("@compute @workgroup_size({x}, {y}, {z})\nfn {name}({}) {{\n", builtins.join(", "));
    for line in body {
        text += "  ";
        text += line;
        text.push('\n');
    }
    text + "}\n"
}

/// What a kernel declares.
struct Uses {
    /// Buffers in global memory: parameters in their order, then the others.
    bindings: Vec<BufferId>,
    workgroup: Vec<BufferId>,
    /// Registers, each as often as it is declared.
    registers: Vec<BufferId>,
    /// Those of them that are arrays.
    arrays: Vec<BufferId>,
    f16: bool,
}

impl Uses {
    fn of(
        nest: &Nest,
        pool: &ExprPool,
        steps: &[Step],
        layouts: &BTreeMap<BufferId, Layout>,
    ) -> Result<Uses, WgslError> {
        let mut dtypes = BTreeSet::new();
        visit_stores(steps, &mut |store| {
            for root in store.roots() {
                pool.visit(root, &mut |id| {
                    dtypes.insert(pool.dtype(id));
                });
            }
        });
        let error = |what: String, dtype| WgslError::Type { nest: nest.name.clone(), what, dtype };
        for &id in layouts.keys() {
            let buffer = &pool.buffers[id];
            if storage_type(buffer.dtype).is_none() {
                return Err(error(format!("buffer '{}'", buffer.name), buffer.dtype));
            }
            dtypes.insert(buffer.dtype);
        }
        if let Some(&dtype) = dtypes.iter().find(|&&dtype| storage_type(dtype).is_none()) {
            return Err(error("an expression".to_string(), dtype));
        }
        let of_scope = |scope| layouts.keys().copied().filter(move |&id| pool.buffers[id].scope == scope);
        let mut bindings: Vec<BufferId> =
            nest.params.iter().copied().filter(|id| layouts.contains_key(id)).collect();
        for id in of_scope(Scope::Global) {
            if !bindings.contains(&id) {
                bindings.push(id);
            }
        }
        let mut registers = vec![];
        declared(steps, &mut registers);
        registers.retain(|id| layouts.contains_key(id));
        Ok(Uses {
            bindings,
            workgroup: of_scope(Scope::Workgroup).collect(),
            arrays: registers.iter().copied().filter(|id| !layouts[id].variables).collect(),
            registers,
            f16: dtypes.contains(&DType::F16),
        })
    }

    /// Checks the limits on buffers; the bytes of workgroup memory.
    fn check_limits(&self, nest: &Nest, pool: &ExprPool, target: &GpuTarget) -> Result<u32, WgslError> {
        let limits = &target.limits;
        let bytes = |id: &BufferId| {
            let buffer = &pool.buffers[*id];
            let stored = storage_type(buffer.dtype).map_or(0, DType::size_bytes);
            buffer.storage_len() as u64 * stored as u64
        };
        limit(
            nest,
            "max_storage_buffers_per_stage",
            self.bindings.len() as u64,
            u64::from(limits.max_storage_buffers_per_stage),
        )?;
        for id in &self.bindings {
            limit(nest, "max_storage_buffer_binding_bytes", bytes(id), binding_limit(limits))?;
        }
        let total: u64 = self.registers.iter().map(bytes).sum();
        limit(nest, "max_private_bytes", total, MAX_PRIVATE_BYTES)?;
        limit(nest, "max_array_bytes", self.arrays.iter().map(bytes).sum(), MAX_ARRAY_BYTES)?;
        let total: u64 = self.workgroup.iter().map(|id| round_up(bytes(id) as usize, 16) as u64).sum();
        limit(nest, "max_workgroup_memory_bytes", total, u64::from(limits.max_workgroup_memory_bytes))?;
        Ok(total as u32)
    }
}

/// The register buffers that `steps` declare.
fn declared(steps: &[Step], out: &mut Vec<BufferId>) {
    for step in steps {
        match step {
            Step::Declare(id) => out.push(*id),
            Step::For { body, .. } | Step::Scope(body) | Step::Region { body, .. } => declared(body, out),
            Step::Store(_) | Step::Barrier => {}
        }
    }
}

/// An expression that has a name.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) wide: bool,
    /// Buffers whose change makes the name stale.
    pub(super) reads: Vec<BufferId>,
}

/// A block of the text under construction.
pub(super) struct BlockScope {
    pub(super) lines: Vec<String>,
    pub(super) named: HashMap<ExprId, Named>,
    pub(super) is_loop: bool,
}

impl BlockScope {
    fn new(is_loop: bool) -> BlockScope {
        BlockScope { lines: vec![], named: HashMap::new(), is_loop }
    }
}

/// Writes the statements of one kernel. The values are in [`values`](super::values).
pub(super) struct Writer {
    pub(super) nest: String,
    pub(super) pool: ExprPool,
    pub(super) lane: VarId,
    pub(super) layouts: BTreeMap<BufferId, Layout>,
    pub(super) written: BTreeSet<BufferId>,
    pub(super) buffer_names: BTreeMap<BufferId, String>,
    pub(super) names: Names,
    pub(super) var_names: HashMap<VarId, String>,
    /// The number of the block in which a variable is bound.
    pub(super) var_levels: HashMap<VarId, usize>,
    /// The blocks around, the function's first.
    pub(super) scopes: Vec<BlockScope>,
    /// The block that the expression being written goes to.
    pub(super) target: usize,
    /// How often each expression is used by the stores being written.
    pub(super) counts: HashMap<ExprId, usize>,
    pub(super) expr_uses: HashMap<ExprId, Rc<values::Uses>>,
    pub(super) forms: HashMap<ExprId, Rc<Affine>>,
    pub(super) helpers: BTreeSet<&'static str>,
    pub(super) has_invocations: bool,
    /// Whether the kernel reads global memory that it writes.
    pub(super) shares_global: bool,
    /// How invocations share loads, where they do.
    pub(super) subgroups: Option<Subgroups>,
}

impl Writer {
    fn header(&self, uses: &Uses) -> String {
        let mut text = String::new();
        if uses.f16 {
            text += "enable f16;\n\n";
        }
        for (binding, id) in uses.bindings.iter().enumerate() {
            let access = match access_of(self.pool.buffers[*id].role) {
                Access::Read => "read",
                Access::ReadWrite => "read_write",
            };
            let name = &self.buffer_names[id];
            let array = self.array_type(*id);
            text += &format!("@group(0) @binding({binding}) var<storage, {access}> {name}: {array};\n");
        }
        for id in &uses.workgroup {
            text += &format!("var<workgroup> {}: {};\n", self.buffer_names[id], self.array_type(*id));
        }
        text.push('\n');
        let mut helpers = self.helpers.clone();
        for helper in HELPERS.iter().rev() {
            if helpers.contains(helper.name) {
                helpers.extend(helper.needs);
            }
        }
        for helper in HELPERS.iter().filter(|helper| helpers.contains(helper.name)) {
            text += helper.text;
            text.push('\n');
        }
        text
    }

    fn array_type(&self, id: BufferId) -> String {
        let len = self.pool.buffers[id].storage_len().max(1);
        let wide = self.layouts[&id].wide;
        format!("array<{}, {}>", self.element_type(id), if wide { len / 4 } else { len })
    }

    fn element_type(&self, id: BufferId) -> String {
        let stored = storage_type(self.pool.buffers[id].dtype).expect("types should have been checked");
        if self.layouts[&id].wide { format!("vec4<{stored}>") } else { stored.to_string() }
    }

    pub(super) fn line(&mut self, line: impl Into<String>) {
        let scope = self.scopes.last_mut().expect("there should be a block");
        scope.lines.push(line.into());
    }

    fn open(&mut self, is_loop: bool) {
        self.scopes.push(BlockScope::new(is_loop));
        self.target = self.scopes.len() - 1;
    }

    /// Closes the innermost block and puts it behind `head`.
    fn close(&mut self, head: &str) {
        let inner = self.scopes.pop().expect("there should be a block to close");
        self.target = self.scopes.len() - 1;
        if inner.lines.is_empty() {
            return;
        }
        self.line(head);
        for line in inner.lines {
            self.line(format!("  {line}"));
        }
        self.line("}");
    }

    /// Names a variable of the current block.
    fn bind_var(&mut self, var: VarId) -> String {
        let name = match self.var_names.get(&var) {
            Some(name) => name.clone(),
            None => self.names.fresh(&self.pool.vars[var].name.clone()),
        };
        self.var_names.insert(var, name.clone());
        self.var_levels.insert(var, self.scopes.len() - 1);
        name
    }

    fn grid_variables(&mut self, grid: &Grid) {
        if let Some(subgroups) = &mut self.subgroups {
            let lane = subgroups.lane;
            subgroups.differing.insert(lane);
            self.var_names.insert(lane, format!("i32({LANE_ID})"));
            self.var_levels.insert(lane, 0);
        }
        let mut flat = AXES.map(|axis| format!("i32(group_id.{axis})"));
        if grid.folded {
            let [x, y, _] = grid.workgroups;
            let group = format!("group_id.x + {x}u * (group_id.y + {y}u * group_id.z)");
            self.line(format!("let group = i32({group});"));
            self.line(format!("if (group >= {}) {{", grid.total()));
            self.line("  return;");
            self.line("}");
            let mut divisor = 1;
            for (index, &extent) in flat.iter_mut().zip(&grid.extents) {
                *index = part("group", divisor, Some(extent as usize));
                divisor *= extent as usize;
            }
        }
        for axis in 0..3 {
            let loops = &grid.workgroup_loops[axis];
            let mut whole = flat[axis].clone();
            if loops.len() > 1 {
                let name = self.names.fresh(&format!("group_{}", AXES[axis]));
                self.line(format!("let {name} = {whole};"));
                whole = name;
            }
            let mut divisor: usize = loops.iter().map(|&(_, extent)| extent).product();
            for (place, &(var, extent)) in loops.iter().enumerate() {
                divisor /= extent.max(1);
                let name = self.bind_var(var);
                let modulus = (place > 0).then_some(extent);
                self.line(format!("let {name} = {};", part(&whole, divisor, modulus)));
            }
        }
    }

    /// Writes statements; `counted` says that uses are counted already.
    fn steps(&mut self, steps: &[Step], assumed: &[ExprId], counted: bool) -> Result<(), WgslError> {
        let mut counted_until = if counted { steps.len() } else { 0 };
        let mut at = 0;
        while at < steps.len() {
            if at >= counted_until && matches!(steps[at], Step::Store(_)) {
                let run = steps[at..].iter().take_while(|step| matches!(step, Step::Store(_))).count();
                self.count(&steps[at..at + run]);
                counted_until = at + run;
            }
            let mut common = self.common(&steps[at]);
            common.retain(|c| !assumed.contains(c));
            if common.is_empty() {
                self.step(&steps[at], assumed)?;
                at += 1;
                continue;
            }
            let mut end = at + 1;
            while end < steps.len() {
                let theirs = self.common(&steps[end]);
                let both: Vec<ExprId> = common.iter().copied().filter(|c| theirs.contains(c)).collect();
                if both.is_empty() || !both.iter().all(|&c| self.is_stable(c)) {
                    break;
                }
                common = both;
                end += 1;
            }
            let stores = steps[at..end].iter().all(|step| matches!(step, Step::Store(_)));
            if !stores {
                self.counts.clear();
            }
            let condition = self.pool.conjunction(&common);
            let divergent = usize::from(!self.is_uniform(condition));
            let condition = self.value(condition)?;
            self.open(false);
            let assumed: Vec<ExprId> = assumed.iter().copied().chain(common).collect();
            self.diverge(|of| of + divergent);
            self.steps(&steps[at..end], &assumed, stores)?;
            self.diverge(|of| of - divergent);
            self.close(&format!("if ({}) {{", condition.fragment.text));
            at = end;
            if !stores {
                counted_until = counted_until.min(at);
            }
        }
        Ok(())
    }

    /// Changes the count of statements around that not all invocations run.
    fn diverge(&mut self, change: impl Fn(usize) -> usize) {
        if let Some(subgroups) = &mut self.subgroups {
            subgroups.divergent = change(subgroups.divergent);
        }
    }

    /// Whether a condition reads nothing that the kernel changes.
    fn is_stable(&self, condition: ExprId) -> bool {
        self.pool.buffers_read(condition).iter().all(|buffer| !self.written.contains(buffer))
    }

    /// The conditions that all stores of a statement have and that can be tested before it.
    fn common(&self, step: &Step) -> Vec<ExprId> {
        match step {
            Step::Store(store) => store.conditions.clone(),
            Step::For { var, body, .. } => {
                let mut common = self.common_of(body);
                common.retain(|&c| self.is_stable(c) && !self.pool.uses_var(c, *var));
                common
            }
            Step::Scope(body) => {
                let mut common = self.common_of(body);
                common.retain(|&c| self.is_stable(c));
                common
            }
            Step::Declare(_) | Step::Barrier | Step::Region { .. } => vec![],
        }
    }

    fn common_of(&self, steps: &[Step]) -> Vec<ExprId> {
        let mut steps = steps.iter().filter(|step| !matches!(step, Step::Declare(_)));
        let mut common = steps.next().map(|step| self.common(step)).unwrap_or_default();
        for step in steps {
            if common.is_empty() {
                break;
            }
            let theirs = self.common(step);
            common.retain(|c| theirs.contains(c));
        }
        common
    }

    fn step(&mut self, step: &Step, assumed: &[ExprId]) -> Result<(), WgslError> {
        match step {
            Step::Declare(id) => self.declare(*id),
            Step::Store(store) => self.store(store)?,
            Step::For { var, extent, body } => {
                self.forget_changes(body);
                self.open(true);
                let name = self.bind_var(*var);
                self.steps(body, assumed, false)?;
                self.close(&format!("for (var {name}: i32 = 0; {name} < {extent}; {name}++) {{"));
                self.forget_changes(body);
            }
            Step::Scope(body) => {
                self.open(false);
                self.steps(body, assumed, false)?;
                self.close("{");
            }
            Step::Region { bounds, locals, body } => {
                let divergent = usize::from(!bounds.is_empty());
                if !bounds.is_empty() {
                    self.open(false);
                }
                self.diverge(|of| of + divergent);
                for local in locals {
                    self.subgroups.iter_mut().for_each(|of| {
                        of.differing.insert(local.var);
                    });
                    let whole = format!("i32(local_id.{})", AXES[local.axis]);
                    let name = self.bind_var(local.var);
                    self.line(format!("let {name} = {};", part(&whole, local.divisor, local.modulus)));
                }
                self.steps(body, assumed, false)?;
                self.diverge(|of| of - divergent);
                if !bounds.is_empty() {
                    let tests: Vec<String> = bounds
                        .iter()
                        .map(|(axis, bound)| match bound {
                            1 => format!("local_id.{} == 0u", AXES[*axis]),
                            bound => format!("local_id.{} < {bound}u", AXES[*axis]),
                        })
                        .collect();
                    self.close(&format!("if ({}) {{", tests.join(" && ")));
                }
            }
            Step::Barrier => self.barrier(),
        }
        Ok(())
    }

    fn barrier(&mut self) {
        self.forget(|writer, id| writer.written.contains(&id));
        if self.has_invocations {
            self.line("workgroupBarrier();");
        }
        if self.has_invocations && self.shares_global {
            self.line("storageBarrier();");
        }
    }

    fn declare(&mut self, id: BufferId) {
        let Some(layout) = self.layouts.get(&id).copied() else { return };
        let element = self.element_type(id);
        if layout.variables {
            let step = if layout.wide { 4 } else { 1 };
            for first in (0..self.pool.buffers[id].storage_len()).step_by(step) {
                let name = self.variable_name(id, first);
                self.line(format!("var {name}: {element};"));
            }
        } else {
            self.line(format!("var {}: {};", self.buffer_names[&id].clone(), self.array_type(id)));
        }
    }

    /// The variable of a register buffer that holds the element at a flat index: `acc_0_4`.
    pub(super) fn variable_name(&self, id: BufferId, flat: usize) -> String {
        let mut name = self.buffer_names[&id].clone();
        let mut rest = flat;
        for stride in self.pool.buffers[id].strides() {
            name += &format!("_{}", rest / stride.max(1));
            rest %= stride.max(1);
        }
        name
    }

    /// Drops names that `stale` says depend on a buffer that changes.
    fn forget(&mut self, stale: impl Fn(&Writer, BufferId) -> bool) {
        let mut scopes = std::mem::take(&mut self.scopes);
        for scope in &mut scopes {
            scope.named.retain(|_, named| !named.reads.iter().any(|&id| stale(self, id)));
        }
        self.scopes = scopes;
    }

    /// Drops names of what `steps` change.
    fn forget_changes(&mut self, steps: &[Step]) {
        let mut changed = BTreeSet::new();
        visit_stores(steps, &mut |store| {
            changed.insert(store.buffer);
        });
        let barrier = contains_barrier(steps);
        self.forget(|writer, id| changed.contains(&id) || (barrier && writer.written.contains(&id)));
    }

    fn store(&mut self, store: &FlatStore) -> Result<(), WgslError> {
        let dtype = self.pool.buffers[store.buffer].dtype;
        if !store.wide {
            let value = self.value(store.value)?.fragment;
            let target = self.reference(store.buffer, store.index)?;
            self.assign(&target, store.combine, value, dtype, false)?;
        } else if let Some(target) = self.wide_reference(store.buffer, store.index)? {
            let value = self.value(store.value)?;
            let value = self.splat(value, dtype);
            self.assign(&target, store.combine, value, dtype, true)?;
        } else if let (Some(combiner), false) = (store.combine, self.pool.uses_var(store.index, self.lane)) {
            let value = self.value(store.value)?;
            let value = self.splat(value, dtype);
            let name = self.temporary("t", &value);
            let mut total = Fragment::primary(format!("{name}.x"));
            for component in ["y", "z", "w"] {
                let part = Fragment::primary(format!("{name}.{component}"));
                total = self.binary(combiner.op(), dtype, &total, &part)?;
            }
            let target = self.reference(store.buffer, store.index)?;
            self.assign(&target, Some(combiner), total, dtype, false)?;
        } else {
            let value = self.value(store.value)?;
            let name = if value.wide { Some(self.temporary("t", &value.fragment)) } else { None };
            for (number, component) in ["x", "y", "z", "w"].into_iter().enumerate() {
                let index = layout::store_index(&mut self.pool, store.index, self.lane, number as i64);
                let target = self.reference(store.buffer, index)?;
                let value = match &name {
                    Some(name) => Fragment::primary(format!("{name}.{component}")),
                    None => value.fragment.clone(),
                };
                self.assign(&target, store.combine, value, dtype, false)?;
            }
        }
        let buffer = store.buffer;
        self.forget(|_, id| id == buffer);
        Ok(())
    }

    /// Writes or combines a value of `dtype`.
    fn assign(
        &mut self,
        target: &str,
        combine: Option<Combiner>,
        value: Fragment,
        dtype: DType,
        wide: bool,
    ) -> Result<(), WgslError> {
        let plain = !matches!(dtype, DType::Bool | DType::I8 | DType::I16 | DType::U8 | DType::U16);
        let value = match combine {
            None => value,
            Some(Combiner::Add) if plain => {
                self.line(format!("{target} += {};", value.text));
                return Ok(());
            }
            Some(Combiner::Mul) if plain => {
                self.line(format!("{target} *= {};", value.text));
                return Ok(());
            }
            Some(combiner) => {
                let old = self.loaded(Fragment::primary(target), dtype, wide);
                if wide && !plain {
                    // Small integers wrap one by one.
                    let (old, value) = (self.temporary("t", &old), self.temporary("t", &value));
                    let parts = self.by_components(&[(&old, true), (&value, true)], |writer, operands| {
                        writer.binary(combiner.op(), dtype, &operands[0], &operands[1])
                    })?;
                    Value::components(&parts, dtype)
                } else {
                    self.binary(combiner.op(), dtype, &old, &value)?
                }
            }
        };
        let value = match (dtype, wide) {
            (DType::Bool, false) => format!("u32({})", value.argument()),
            (DType::Bool, true) => format!("vec4<u32>({})", value.argument()),
            (
                DType::F16
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
                | DType::U64,
                _,
            ) => value.text,
        };
        self.line(format!("{target} = {value};"));
        Ok(())
    }
}

/// `whole / divisor % modulus`.
fn part(whole: &str, divisor: usize, modulus: Option<usize>) -> String {
    let quotient = if divisor == 1 { whole.to_string() } else { format!("{whole} / {divisor}") };
    match modulus {
        Some(modulus) => format!("{quotient} % {modulus}"),
        None => quotient,
    }
}

/// How often one invocation starts the body of a loop, all loops together.
fn iterations(steps: &[Step]) -> u64 {
    let of = |step: &Step| match step {
        Step::For { extent, body, .. } => (*extent as u64).saturating_mul(iterations(body).saturating_add(1)),
        Step::Scope(body) | Step::Region { body, .. } => iterations(body),
        Step::Declare(_) | Step::Store(_) | Step::Barrier => 0,
    };
    steps.iter().map(of).fold(0, u64::saturating_add)
}

fn contains_barrier(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::For { body, .. } | Step::Scope(body) | Step::Region { body, .. } => contains_barrier(body),
        Step::Barrier => true,
        Step::Declare(_) | Step::Store(_) => false,
    })
}
