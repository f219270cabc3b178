//! Whether an HDF5 file that somebody has sent is whole in itself: libhdf5 would follow links, virtual datasets and external
//! storage into whatever file of this machine they name.

use super::open;
use hdf5::{Dataset, Group, LinkType, LocationType};
use std::path::Path;

/// Most objects that are looked at.
const OBJECTS_MAX: usize = 10_000;
/// Deepest nesting of groups.
const DEPTH_MAX: usize = 32;

/// Looks at every object of a file, and opens none that a link to another file leads to.
///
/// # Errors
/// A sentence that names the object which takes from another file.
pub fn check_whole(path: &Path) -> Result<(), String> {
    let failed = |error: hdf5::Error| format!("it is damaged or not HDF5: {error}");
    let file = open::read(path).map_err(failed)?;
    let root = file.as_group().map_err(failed)?;
    below(&root, "", 0, &mut 0)
}

fn below(group: &Group, path: &str, depth: usize, seen: &mut usize) -> Result<(), String> {
    let links = group.links(hdf5::IndexType::Name, hdf5::IterationOrder::Native);
    for (name, link) in links.map_err(|error| error.to_string())? {
        let at = format!("{path}/{name}");
        *seen += 1;
        if *seen > OBJECTS_MAX || depth >= DEPTH_MAX {
            return Err(format!(
                "it has more than {OBJECTS_MAX} objects, or groups nested more than {DEPTH_MAX} deep: send one with the \
                 values alone"
            ));
        }
        let opened = match link.link_type {
            LinkType::External => Err(elsewhere(&at)),
            // It leads to an object of this file, which a hard link leads to as well.
            LinkType::Soft => continue,
            LinkType::Hard => Ok(group.loc_type_by_name(&name)),
        };
        match opened? {
            Ok(LocationType::Group) => {
                let child = group.group(&name).map_err(|error| error.to_string())?;
                below(&child, &at, depth + 1, seen)?;
            }
            Ok(LocationType::Dataset) => {
                let dataset = group.dataset(&name).map_err(|error| error.to_string())?;
                if takes_from_elsewhere(&dataset).map_err(|error| error.to_string())? {
                    return Err(elsewhere(&at));
                }
            }
            Ok(LocationType::NamedDatatype) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

fn takes_from_elsewhere(dataset: &Dataset) -> hdf5::Result<bool> {
    let plan = dataset.dcpl()?;
    let joined = dataset.layout() == hdf5::dataset::Layout::Virtual
        && plan.get_virtual_map()?.iter().any(|source| source.src_filename != ".");
    Ok(joined || !plan.get_external()?.is_empty())
}

fn elsewhere(at: &str) -> String {
    format!("{at:?} takes its values from another file: send one with the values themselves (h5repack, or .npy)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_from_another_file_is_named() {
        let folder = std::env::temp_dir().join(format!("fluxline-whole-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let made = |name: &str, make: &dyn Fn(&hdf5::File)| {
            let path = folder.join(name);
            let file = hdf5::File::create(&path).unwrap();
            make(&file);
            drop(file);
            check_whole(&path)
        };
        let plain = |file: &hdf5::File| {
            let group = file.create_group("entry").unwrap();
            let values = group.new_dataset_builder().with_data(&[1.0f64, 2.0]);
            values.create("data").unwrap();
            file.link_soft("/entry/data", "soft").unwrap();
            // Round and round.
            group.link_hard("/entry", "again").unwrap();
        };
        let flat = |file: &hdf5::File| {
            let values = file.new_dataset_builder().with_data(&[1.0f64, 2.0]);
            values.create("data").unwrap();
            file.link_soft("/data", "soft").unwrap();
        };
        assert_eq!(made("flat.h5", &flat), Ok(()));
        assert!(made("round.h5", &plain).is_err_and(|said| said.contains("nested")));
        let linked = made("linked.h5", &|file| {
            let group = file.create_group("entry").unwrap();
            group.link_external("/etc/passwd", "/data", "data").unwrap();
        });
        assert!(linked.is_err_and(|said| said.contains("\"/entry/data\" takes")));
        let outside = made("outside.h5", &|file| {
            let values = file.new_dataset::<u8>().shape([8]).external("/etc/passwd", 0, 8);
            values.create("data").unwrap();
        });
        assert!(outside.is_err_and(|said| said.contains("\"/data\" takes")));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
