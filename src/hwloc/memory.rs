// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocations that fail with an error. Those of the standard library abort,
//! and the program that runs out of memory is not ours to end.

use crate::error::{Error, Result};
use std::alloc::{alloc, alloc_zeroed, Layout};
use std::collections::HashMap;

/// An empty list with room for `capacity` values.
pub fn list<T>(capacity: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(capacity)
        .map_err(|_| Error::NoMemory)?;
    Ok(list)
}

/// A list of `count` times the same value.
pub fn filled<T: Clone>(value: T, count: usize) -> Result<Vec<T>> {
    let mut filled = list(count)?;
    filled.resize(count, value);
    Ok(filled)
}

/// Words that are 0, and take no memory until they are written.
pub fn zeroed(count: usize) -> Result<Vec<u64>> {
    let layout = Layout::array::<u64>(count).map_err(|_| Error::NoMemory)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the size is not 0; the list has the layout of the allocation,
    // and 0 is a value.
    unsafe {
        let words = alloc_zeroed(layout).cast::<u64>();
        if words.is_null() {
            return Err(Error::NoMemory);
        }
        Ok(Vec::from_raw_parts(words, count, count))
    }
}

/// Appends a value.
#[inline]
pub fn push<T>(list: &mut Vec<T>, value: T) -> Result<()> {
    list.try_reserve(1).map_err(|_| Error::NoMemory)?;
    list.push(value);
    Ok(())
}

/// Appends values.
pub fn append<T: Copy>(list: &mut Vec<T>, values: &[T]) -> Result<()> {
    list.try_reserve(values.len())
        .map_err(|_| Error::NoMemory)?;
    list.extend_from_slice(values);
    Ok(())
}

/// An empty map with room for `capacity` values.
pub fn map<K, V, S>(capacity: usize) -> Result<HashMap<K, V, S>>
where
    K: Eq + core::hash::Hash,
    S: core::hash::BuildHasher + Default,
{
    let mut map = HashMap::default();
    map.try_reserve(capacity).map_err(|_| Error::NoMemory)?;
    Ok(map)
}

/// Sets the value of a key.
pub fn insert<K, V, S>(map: &mut HashMap<K, V, S>, key: K, value: V) -> Result<()>
where
    K: Eq + core::hash::Hash,
    S: core::hash::BuildHasher,
{
    map.try_reserve(1).map_err(|_| Error::NoMemory)?;
    map.insert(key, value);
    Ok(())
}

/// A value on the heap.
pub fn boxed<T>(value: T) -> Result<Box<T>> {
    let layout = Layout::new::<T>();
    assert!(layout.size() != 0);
    // SAFETY: the size is not 0; the memory is written before it is a box of
    // the layout that it was made with.
    unsafe {
        let place = alloc(layout).cast::<T>();
        if place.is_null() {
            return Err(Error::NoMemory);
        }
        place.write(value);
        Ok(Box::from_raw(place))
    }
}
