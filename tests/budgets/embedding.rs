//! Rows of tables: tokens of the model, and the analyzer's own.

use deepguard::ops::embedding::Embedding;
use deepguard::ops::philox::philox;

use super::counting::{count, global_bytes, uncounted};
use super::memory::{buffer, check, holding, random, weight};

#[test]
fn gather_and_scatter() {
    if uncounted() {
        return;
    }
    let (rows, width, table_rows) = (2048usize, 128, 4096);
    // Frequent ids, and others that occur once.
    let id = |i: u32| philox(9, [i, 0, 0, 0])[0] % if i.is_multiple_of(3) { 60 } else { table_rows as u32 };
    let ids: Vec<u32> = (0..rows as u32).map(id).collect();
    let mut distinct = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let [gather, scatter] = count(["gather", "scatter_add"], |cuda| {
        let (ids, row_weight) = (holding(cuda, &ids), buffer(cuda, rows));
        let (mut table, mut out) = (buffer(cuda, table_rows * width), random(cuda, rows * width, 1.0));
        cuda.gather(out.view_mut(), table.view(), ids.view(), width);
        cuda.scatter_add(table.view_mut(), out.view(), ids.view(), row_weight.view(), width);
    });
    check("gather", &gather, rows * (6 * width + 4));
    // A row of the table is read and written once, whatever the number of its gradients.
    check("scatter_add", &scatter, rows * (2 * width + 12) + distinct.len() * 8 * width);
}

#[test]
fn embed() {
    if uncounted() {
        return;
    }
    let (rows, width, table_rows) = (512usize, 896, 300usize);
    let [embed] = count(["embed"], |cuda| {
        let (table, mut out) = (weight(cuda, table_rows, width), buffer(cuda, rows * width));
        let ids: Vec<u32> = (0..rows as u32).map(|i| i * 7 % table_rows as u32).collect();
        cuda.embed(out.view_mut(), &table, holding(cuda, &ids).view());
    });
    check("embed", &embed, rows * (4 * width + 4));
}

/// Warp instructions of the sort for a row, all passes together.
const OF_A_ROW: f64 = 12.0;

/// A step's rows and more: as many instructions for each, whatever their number, and few bytes.
#[test]
fn rows_are_sorted_in_linear_time() {
    if uncounted() {
        return;
    }
    for rows in [10_000usize, 32_000] {
        let table_rows = 152_064;
        let id =
            |i: u32| philox(9, [i, 0, 0, 0])[0] % if i.is_multiple_of(3) { 60 } else { table_rows as u32 };
        let ids: Vec<u32> = (0..rows as u32).map(id).collect();
        let [sort] = count(["sort_rows"], |cuda| {
            let (ids, row_weight) = (holding(cuda, &ids), buffer(cuda, rows));
            let (mut table, d) = (buffer(cuda, table_rows), random(cuda, rows, 1.0));
            cuda.scatter_add(table.view_mut(), d.view(), ids.view(), row_weight.view(), 1);
        });
        let of_a_row = sort.warp_instructions() as f64 / rows as f64;
        println!(
            "sort_rows, {rows} rows: {of_a_row:.1} warp instructions and {} bytes a row",
            global_bytes(&sort) / rows
        );
        assert!(of_a_row <= OF_A_ROW, "{rows} rows: {of_a_row:.1} warp instructions a row");
        assert_eq!(sort.blocks, 1);
    }
}
