//! Shaders that only measure what an adapter does at best.

/// Invocations in a workgroup of the probes.
pub const PROBE_WORKGROUP: u64 = 64;
/// Floating-point operations of one invocation of [`ARITHMETIC_PROBE`]: 1024 times eight fused multiply-adds of four lanes.
pub const ARITHMETIC_PROBE_FLOP: u64 = 1024 * 8 * 4 * 2;

/// Independent chains of fused multiply-adds in registers. Entry `arithmetic`; binding 0 is written, an f32 an invocation.
pub const ARITHMETIC_PROBE: &str = "\
@group(0) @binding(0) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn arithmetic(@builtin(global_invocation_id) id: vec3<u32>) {
    let x = vec4<f32>(f32(id.x), 1.0, 2.0, 3.0);
    let scale = vec4<f32>(0.5);
    var a = x;
    var b = x + 1.0;
    var c = x + 2.0;
    var d = x + 3.0;
    var e = x + 4.0;
    var f = x + 5.0;
    var g = x + 6.0;
    var h = x + 7.0;
    for (var i = 0u; i < 1024u; i += 1u) {
        a = fma(a, scale, x);
        b = fma(b, scale, x);
        c = fma(c, scale, x);
        d = fma(d, scale, x);
        e = fma(e, scale, x);
        f = fma(f, scale, x);
        g = fma(g, scale, x);
        h = fma(h, scale, x);
    }
    let sum = a + b + c + d + e + f + g + h;
    result[id.x] = sum.x + sum.y + sum.z + sum.w;
}
";

/// Reads all of a buffer, each invocation every so many vectors. Entry `read_all`; binding 0 is read, binding 1 written, an f32 an
/// invocation.
pub const READ_PROBE: &str = "\
@group(0) @binding(0) var<storage, read> data: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn read_all(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var sum = vec4<f32>(0.0);
    for (var i = id.x; i < arrayLength(&data); i += 64u * groups.x) {
        sum += data[i];
    }
    result[id.x] = sum.x + sum.y + sum.z + sum.w;
}
";

#[cfg(test)]
mod tests {
    #[test]
    fn probes_are_portable() {
        super::super::tests::assert_portable(super::ARITHMETIC_PROBE);
        super::super::tests::assert_portable(super::READ_PROBE);
    }
}
