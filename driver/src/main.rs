//! placeholder
use clap::Parser;
#[derive(Parser)]
struct O {
    #[command(flatten)]
    d: chanio::demo::DemoOptions,
}
fn main() {
    let o = O::parse();
    match chanio::demo::run(o.d) {
        Ok(r) => println!("{r}"),
        Err(e) => eprintln!("{e}"),
    }
}
