//! The page is embedded from `web/dist`; a build without it still works and says so in the browser.

fn main() {
    let dist = std::path::Path::new("web/dist");
    // Failing here would only hide the clearer error of the embedding itself.
    let _ = std::fs::create_dir_all(dist);
    println!("cargo:rerun-if-changed=web/dist");
}
