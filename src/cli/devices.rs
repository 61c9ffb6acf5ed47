//! `paisley devices`.

use super::arguments::DeviceArguments;
use super::error::{Answer, CliError};
use super::report::{self, Table};
use crate::runtime::gpu;
use crate::target::{CpuTarget, GpuTarget, Target, TargetRecord};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Lists the CPU and every adapter with the number that `--device gpu:N` takes, their limits and features.
#[derive(Args)]
#[command(after_help = "Examples:
  paisley devices
  paisley devices --save gpu:0 --to adapter.json     (then, anywhere: paisley check MODEL --profile adapter.json)")]
pub(super) struct Arguments {
    /// Write the description of one device, `cpu` or `gpu:N`, for `--profile`
    #[arg(long, value_name = "DEVICE", requires = "to")]
    save: Option<String>,

    /// The file that `--save` writes
    #[arg(long, value_name = "FILE", requires = "save")]
    to: Option<PathBuf>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, CliError> {
    let cpu = DeviceArguments { device: vec![], threads: None, isa: None }.options().cpu;
    let adapters = gpu::adapters();
    if let (Some(device), Some(to)) = (&arguments.save, &arguments.to) {
        save(device, to, cpu, adapters)?;
        return Ok(Answer::Yes);
    }
    if arguments.json {
        report::print_json(&json!({
            "cpu": record(&Target::Cpu(cpu))?,
            "adapters": adapters.into_iter().enumerate().map(|(index, target)| {
                let (software, line) = (is_software(&target), report::adapter_line(&target));
                let device = format!("gpu:{index}");
                let target = record(&Target::Gpu(target))?;
                Ok(json!({ "device": device, "description": line, "software_adapter": software, "target": target }))
            }).collect::<Result<Vec<_>, CliError>>()?,
        }))?;
        return Ok(Answer::Yes);
    }
    let mut text = cpu_text(&cpu);
    for (index, adapter) in adapters.iter().enumerate() {
        text += &gpu_text(index, adapter);
    }
    if adapters.is_empty() {
        text += "\nno graphics adapter was found; install a Vulkan, Metal or Direct3D 12 driver (a software one for Vulkan: \
                 apt install mesa-vulkan-drivers)\n";
    }
    report::print(&text)?;
    Ok(Answer::Yes)
}

fn is_software(target: &GpuTarget) -> bool {
    target.kind == crate::target::GpuKind::Software
}

fn record(target: &Target) -> Result<Value, CliError> {
    serde_json::from_str(&TargetRecord::from(target).to_json())
        .map_err(|error| CliError::Output(error.into()))
}

fn save(device: &str, to: &PathBuf, cpu: CpuTarget, mut adapters: Vec<GpuTarget>) -> Result<(), CliError> {
    let number =
        if device == "gpu" { Some(0) } else { device.strip_prefix("gpu:").and_then(|n| n.parse().ok()) };
    let target = match (device, number) {
        ("cpu", _) => Target::Cpu(cpu),
        (_, Some(index)) if index < adapters.len() => Target::Gpu(adapters.swap_remove(index)),
        (_, Some(index)) => {
            let error = match adapters.len() {
                0 => gpu::GpuError::NoAdapter,
                found => gpu::GpuError::AdapterIndex { index, found },
            };
            return Err(crate::runtime::RuntimeError::from(error).into());
        }
        (_, None) => return Err(CliError::input(format!("'{device}' cannot be saved; write cpu or gpu:N"))),
    };
    std::fs::write(to, TargetRecord::from(&target).to_json() + "\n")
        .map_err(|error| CliError::input(format!("cannot write {}: {error}", to.display())))
}

fn cpu_text(cpu: &CpuTarget) -> String {
    let mut table = Table::new(&["cpu", &cpu.name]);
    table.row(&[
        &"  instruction set",
        &format!("{} ({} f32 in a register)", cpu.isa.name(), cpu.vector_lanes_f32),
    ]);
    table.row(&[&"  cores, threads", &format!("{}, {}", cpu.cores, cpu.threads)]);
    let caches = [cpu.l1_bytes, cpu.l2_bytes, cpu.l3_bytes].map(|size| format!("{} KiB", size >> 10));
    table.row(&[&"  caches (assumed)", &caches.join(", ")]);
    table.row(&[&"  rates (assumed)", &rates(cpu.rates)]);
    table.print("")
}

fn gpu_text(index: usize, gpu: &GpuTarget) -> String {
    let (limits, features) = (&gpu.limits, &gpu.features);
    let mut table = Table::new(&[&format!("gpu:{index}"), &report::adapter_line(gpu)]);
    table.row(&[&"  driver", &gpu.driver]);
    let [x, y, z] = limits.max_workgroup_size;
    let workgroup = format!("{} invocations, at most {x} x {y} x {z}", limits.max_invocations_per_workgroup);
    table.row(&[&"  workgroup", &workgroup]);
    table.row(&[&"  workgroup memory", &format!("{} KiB", limits.max_workgroup_memory_bytes >> 10)]);
    table.row(&[&"  grid", &format!("{} workgroups along each axis", limits.max_workgroups_per_dimension)]);
    table.row(&[&"  buffers of a kernel", &limits.max_storage_buffers_per_stage]);
    let sizes = [limits.max_storage_buffer_binding_bytes, limits.max_buffer_bytes];
    let sizes = sizes.map(|size| format!("{} MiB", size >> 20));
    table.row(&[&"  largest binding", &sizes[0]]);
    table.row(&[&"  largest buffer", &sizes[1]]);
    if limits.max_loop_iterations != u32::MAX {
        table.row(&[&"  loop iterations", &limits.max_loop_iterations]);
    }
    let mut known = vec![];
    let flags = [
        (features.f16, "f16"),
        (features.i64, "i64"),
        (features.f32_atomics, "f32 atomics"),
        (features.subgroup_barrier, "subgroup barriers"),
        (features.timestamps, "timestamps"),
        (features.packed_int8_dot, "packed int8 dot"),
    ];
    known.extend(flags.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_string()));
    known.extend(features.subgroups.map(|sizes| format!("subgroups of {} to {}", sizes.min, sizes.max)));
    known.extend(features.cooperative_matrices.iter().map(|shape| {
        format!("matrices {}x{}x{} {} to {}", shape.m, shape.n, shape.k, shape.input, shape.accumulator)
    }));
    table.row(&[&"  features", &known.join(", ")]);
    table.row(&[&"  rates (assumed)", &rates(gpu.rates)]);
    format!("\n{}", table.print(""))
}

fn rates(rates: crate::target::Rates) -> String {
    format!(
        "{} GFLOP/s, {} GB/s, {} us a launch",
        report::digits(rates.flop_per_second / 1e9),
        report::digits(rates.bytes_per_second / 1e9),
        report::digits(rates.launch_ns / 1e3)
    )
}
