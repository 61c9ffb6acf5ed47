//! Device memory, and the staging buffers through which host data reaches it.

use super::device::{Shared, lock};
use super::{Gpu, GpuError};
use crate::base::round_up;
use bytes::Bytes;
use std::ops::Range;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// The most bytes staged at once; more is moved in parts.
const MAX_STAGING_BYTES: u64 = 256 << 20;

/// How long a callback that another thread is about to call is waited for between two looks at the device.
const CALLBACK_POLL: Duration = Duration::from_millis(1);

/// One buffer of a device. Cloning shares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    pub(super) buffer: wgpu::Buffer,
}

/// A piece of a [`Memory`]. It owns its last bytes up to the next multiple of 4, which copies may overwrite.
#[derive(Clone, Debug, PartialEq)]
pub struct BufferRange {
    /// The memory.
    pub memory: Memory,
    /// The first byte, a multiple of 4; of the device's alignment where a kernel binds it.
    pub offset: u64,
    /// The length in bytes, positive.
    pub size: u64,
}

impl Memory {
    pub(super) fn allocate(shared: &Shared, bytes: u64) -> Result<Memory, GpuError> {
        let max = shared.target.limits.max_buffer_bytes;
        if bytes > max {
            return Err(GpuError::BufferTooLarge { bytes, max });
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        // A limit of 2^31-1 is no multiple of 4, so rounding up may exceed it.
        let size = round_up_4(bytes.max(4)).min(max & !3);
        let buffer = create_buffer(shared, "memory", size, usage)?;
        Ok(Memory { buffer })
    }

    /// The length in bytes.
    pub fn size(&self) -> u64 {
        self.buffer.size()
    }

    /// The `size` bytes from `offset` on; checked where it is used.
    pub fn range(&self, offset: u64, size: u64) -> BufferRange {
        BufferRange { memory: self.clone(), offset, size }
    }

    /// All of it.
    pub fn whole(&self) -> BufferRange {
        self.range(0, self.size())
    }
}

impl BufferRange {
    /// The length that copies and bindings move, a multiple of 4.
    pub(super) fn padded_size(&self) -> u64 {
        round_up_4(self.size)
    }

    /// Fails unless the range is not empty, lies in its memory and starts at a multiple of `alignment`.
    pub(super) fn check(&self, what: &str, alignment: u64) -> Result<(), GpuError> {
        let BufferRange { offset, size, .. } = *self;
        if !offset.is_multiple_of(alignment) {
            return Err(GpuError::Misaligned { what: what.to_string(), offset, alignment });
        }
        let available = self.memory.size();
        let inside = size <= available && offset <= available - size;
        if size == 0 || !inside || offset + self.padded_size() > available {
            return Err(GpuError::OutOfRange { what: what.to_string(), offset, size, available });
        }
        Ok(())
    }

    /// The piece of this range from byte `start` on, `size` bytes long.
    fn part(&self, start: u64, size: u64) -> BufferRange {
        BufferRange { memory: self.memory.clone(), offset: self.offset + start, size }
    }
}

impl Gpu {
    /// Copies host bytes to the device: each slice fills its range. Returns when the device has them.
    ///
    /// # Errors
    /// When lengths differ, a range is not valid, or the device fails.
    pub fn upload(&self, data: &[(BufferRange, &[u8])]) -> Result<(), GpuError> {
        check_uploads(data)?;
        let mut transfers = lock(&self.shared.transfers);
        upload_in_parts(&self.shared, &mut transfers, data)
    }

    /// The bytes of `ranges`, copied from the device after all submitted work.
    ///
    /// # Errors
    /// When a range is not valid, or the device fails.
    pub fn download(&self, ranges: &[BufferRange]) -> Result<Vec<Bytes>, GpuError> {
        check_downloads(ranges)?;
        let mut transfers = lock(&self.shared.transfers);
        download_in_parts(&self.shared, &mut transfers, ranges)
    }
}

/// The staging buffers, kept between runs.
#[derive(Default)]
pub(super) struct Transfers {
    upload: Option<wgpu::Buffer>,
    download: Option<wgpu::Buffer>,
}

impl Transfers {
    /// Writes `data` to the upload buffer and records its copies to the ranges.
    pub(super) fn stage_upload(
        &mut self,
        shared: &Shared,
        encoder: &mut wgpu::CommandEncoder,
        data: &[(BufferRange, &[u8])],
    ) -> Result<(), GpuError> {
        let total = data.iter().map(|(range, _)| range.padded_size()).sum();
        if total == 0 {
            return Ok(());
        }
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let staging = reserve(shared, &mut self.upload, "upload staging", total, usage)?;
        map(shared, &staging, wgpu::MapMode::Write, total, None).inspect_err(|_| self.upload = None)?;
        let mut view = staging.slice(0..total).get_mapped_range_mut().map_err(map_failed)?;
        let mut at = 0;
        for (range, bytes) in data {
            view.slice(at as usize..at as usize + bytes.len()).copy_from_slice(bytes);
            encoder.copy_buffer_to_buffer(
                &staging,
                at,
                &range.memory.buffer,
                range.offset,
                range.padded_size(),
            );
            at += range.padded_size();
        }
        drop(view);
        staging.unmap();
        Ok(())
    }

    /// Records copies of `ranges` to the download buffer.
    pub(super) fn stage_download(
        &mut self,
        shared: &Shared,
        encoder: &mut wgpu::CommandEncoder,
        ranges: &[BufferRange],
    ) -> Result<(), GpuError> {
        let total = ranges.iter().map(BufferRange::padded_size).sum();
        if total == 0 {
            return Ok(());
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = reserve(shared, &mut self.download, "download staging", total, usage)?;
        let mut at = 0;
        for range in ranges {
            encoder.copy_buffer_to_buffer(
                &range.memory.buffer,
                range.offset,
                &staging,
                at,
                range.padded_size(),
            );
            at += range.padded_size();
        }
        Ok(())
    }

    /// Waits for `submission` and takes the bytes that [`stage_download`](Self::stage_download) had copied.
    pub(super) fn finish_download(
        &mut self,
        shared: &Shared,
        submission: wgpu::SubmissionIndex,
        ranges: &[BufferRange],
    ) -> Result<Vec<Bytes>, GpuError> {
        let total = ranges.iter().map(BufferRange::padded_size).sum();
        let Some(staging) = self.download.clone().filter(|_| total > 0) else {
            self.finish(shared, submission)?;
            return Ok(Vec::new());
        };
        map(shared, &staging, wgpu::MapMode::Read, total, Some(submission))
            .inspect_err(|_| self.abandon())?;
        let view = staging.slice(0..total).get_mapped_range().map_err(map_failed)?;
        let mut at = 0;
        let mut outputs = Vec::with_capacity(ranges.len());
        for range in ranges {
            outputs.push(Bytes::copy_from_slice(&view[at as usize..(at + range.size) as usize]));
            at += range.padded_size();
        }
        drop(view);
        staging.unmap();
        Ok(outputs)
    }

    /// Waits for `submission`.
    pub(super) fn finish(
        &mut self,
        shared: &Shared,
        submission: wgpu::SubmissionIndex,
    ) -> Result<(), GpuError> {
        shared.wait(Some(submission)).inspect_err(|_| self.abandon())
    }

    /// Forgets the staging buffers, which the device may still be using.
    fn abandon(&mut self) {
        *self = Transfers::default();
    }
}

/// Whether `bytes` can be staged in one go.
pub(super) fn fits_staging(shared: &Shared, bytes: u64) -> bool {
    bytes <= max_staging_bytes(shared)
}

pub(super) fn check_uploads(data: &[(BufferRange, &[u8])]) -> Result<(), GpuError> {
    for (index, (range, bytes)) in data.iter().enumerate() {
        range.check(&format!("input {index}"), 4)?;
        let given = bytes.len() as u64;
        if given != range.size {
            let what = format!("the data of input {index}");
            return Err(GpuError::SizeMismatch { what, given, expected: range.size });
        }
    }
    Ok(())
}

pub(super) fn check_downloads(ranges: &[BufferRange]) -> Result<(), GpuError> {
    ranges.iter().enumerate().try_for_each(|(index, range)| range.check(&format!("output {index}"), 4))
}

pub(super) fn upload_in_parts(
    shared: &Shared,
    transfers: &mut Transfers,
    data: &[(BufferRange, &[u8])],
) -> Result<(), GpuError> {
    let sizes: Vec<u64> = data.iter().map(|(range, _)| range.size).collect();
    for group in parts(&sizes, max_staging_bytes(shared)) {
        let pieces: Vec<(BufferRange, &[u8])> = group
            .into_iter()
            .map(|(index, Range { start, end })| {
                let (range, bytes) = &data[index];
                (range.part(start, end - start), &bytes[start as usize..end as usize])
            })
            .collect();
        let submission = shared.checked("an upload", |device| {
            let mut encoder = device.create_command_encoder(&Default::default());
            transfers.stage_upload(shared, &mut encoder, &pieces)?;
            Ok(shared.queue.submit([encoder.finish()]))
        })??;
        transfers.finish(shared, submission)?;
    }
    Ok(())
}

pub(super) fn download_in_parts(
    shared: &Shared,
    transfers: &mut Transfers,
    ranges: &[BufferRange],
) -> Result<Vec<Bytes>, GpuError> {
    let sizes: Vec<u64> = ranges.iter().map(|range| range.size).collect();
    let mut outputs = vec![Vec::new(); ranges.len()];
    for group in parts(&sizes, max_staging_bytes(shared)) {
        let pieces: Vec<BufferRange> = group
            .iter()
            .map(|(index, Range { start, end })| ranges[*index].part(*start, end - start))
            .collect();
        let submission = shared.checked("a download", |device| {
            let mut encoder = device.create_command_encoder(&Default::default());
            transfers.stage_download(shared, &mut encoder, &pieces)?;
            Ok(shared.queue.submit([encoder.finish()]))
        })??;
        let got = transfers.finish_download(shared, submission, &pieces)?;
        for ((index, _), bytes) in group.iter().zip(got) {
            outputs[*index].push(bytes);
        }
    }
    Ok(outputs
        .into_iter()
        .map(|mut parts| if parts.len() == 1 { parts.swap_remove(0) } else { parts.concat().into() })
        .collect())
}

/// Cuts items of `sizes` bytes into groups of at most `max` bytes: item numbers with the bytes taken of each.
fn parts(sizes: &[u64], max: u64) -> Vec<Vec<(usize, Range<u64>)>> {
    let mut groups = Vec::new();
    let mut group = Vec::new();
    let mut free = max;
    for (index, &size) in sizes.iter().enumerate() {
        let mut start = 0;
        while start < size {
            let end = size.min(start + free);
            group.push((index, start..end));
            free -= round_up_4(end - start).min(free);
            start = end;
            if free == 0 {
                groups.push(std::mem::take(&mut group));
                free = max;
            }
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

fn max_staging_bytes(shared: &Shared) -> u64 {
    MAX_STAGING_BYTES.min(shared.target.limits.max_buffer_bytes) & !3
}

fn round_up_4(bytes: u64) -> u64 {
    bytes.next_multiple_of(4)
}

/// The buffer in `slot`, replaced by a larger one where it has fewer than `bytes` bytes.
fn reserve(
    shared: &Shared,
    slot: &mut Option<wgpu::Buffer>,
    label: &str,
    bytes: u64,
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer, GpuError> {
    if let Some(buffer) = slot.as_ref().filter(|buffer| buffer.size() >= bytes) {
        return Ok(buffer.clone());
    }
    // Freed first, so that old and new need not fit together.
    *slot = None;
    let size = (round_up(bytes as usize, 64 << 10) as u64).min(max_staging_bytes(shared).max(bytes));
    let buffer = create_buffer(shared, label, size, usage)?;
    *slot = Some(buffer.clone());
    Ok(buffer)
}

pub(super) fn create_buffer(
    shared: &Shared,
    label: &str,
    size: u64,
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer, GpuError> {
    shared.checked(&format!("a {label} buffer of {size} bytes"), |device| {
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        device.create_buffer(&descriptor)
    })
}

/// Maps the first `bytes` bytes of `buffer`, after `submission` if one is given that uses it.
pub(super) fn map(
    shared: &Shared,
    buffer: &wgpu::Buffer,
    mode: wgpu::MapMode,
    bytes: u64,
    submission: Option<wgpu::SubmissionIndex>,
) -> Result<(), GpuError> {
    let (sender, receiver) = mpsc::channel();
    shared.checked("mapping a staging buffer", |_| {
        buffer.slice(0..bytes).map_async(mode, move |result| {
            // The receiver is gone only when the wait below has failed.
            let _ = sender.send(result);
        });
    })?;
    let mut result = receiver.try_recv();
    if result.is_err() {
        let start = Instant::now();
        shared.wait(submission)?;
        // A poll of another thread may have taken the callback up, and call it only after this wait is over.
        result = receiver.try_recv();
        while result == Err(TryRecvError::Empty) {
            if start.elapsed() >= shared.options.timeout {
                return Err(GpuError::Timeout { after: shared.options.timeout });
            }
            shared.alive()?;
            result = receiver.recv_timeout(CALLBACK_POLL).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            });
        }
    }
    shared.alive()?;
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(map_failed(error)),
        Err(error) => Err(map_failed(error)),
    }
}

pub(super) fn map_failed(error: impl std::fmt::Display) -> GpuError {
    GpuError::Internal { what: "mapping a staging buffer".to_string(), text: error.to_string() }
}

#[cfg(test)]
mod parts_tests {
    use super::parts;

    #[test]
    fn transfers_are_cut_at_the_staging_size() {
        assert_eq!(parts(&[3, 4], 8), [vec![(0, 0..3), (1, 0..4)]]);
        assert_eq!(parts(&[20, 4], 8), [vec![(0, 0..8)], vec![(0, 8..16)], vec![(0, 16..20), (1, 0..4)]]);
        assert!(parts(&[], 8).is_empty());
    }
}
