//! The image room by hand: `store ROOT VERB …`, for measuring and for trying it against other tools.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use cata_image::registry::Config;
use cata_image::{
    ImportRequest, PullRequest, PushRequest, RemoveOptions, Silent, Store, import, load, pull, push, save,
};
use cata_spec::{Platform, Reference};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begin = Instant::now();
    if let Err(error) = run(&words) {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        eprintln!("error: {text}");
        std::process::exit(1);
    }
    eprintln!("{:?}", begin.elapsed());
}

fn run(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let [root, words @ ..] = words else { return Err("usage: store ROOT VERB ...".into()) };
    let store = Store::open(Path::new(root));
    let config = Config::read(&Path::new(root).join("config.toml"))?;
    match words {
        ["pull", name, rest @ ..] => {
            let platform = rest.first().map(|text| Platform::parse(text)).transpose()?;
            let request = PullRequest { reference: Reference::parse(name)?, platform };
            let pulled = pull(&store, &config, &request, &Silent)?;
            println!("{} {} changed={}", pulled.digest, pulled.image.id, pulled.changed);
        }
        ["push", name] => {
            let pushed = push(
                &store,
                &config,
                &PushRequest { reference: Reference::parse(name)?, platform: None, as_it_is: false },
                &Silent,
            )?;
            println!("{} {}", pushed.digest, pushed.size);
        }
        ["load"] => println!("{:?}", load(&store, &mut std::io::stdin(), &Silent)?),
        ["save", names @ ..] => {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            save(&store, &names, &mut std::io::stdout())?;
        }
        ["import", name, changes @ ..] => {
            let changes = changes.iter().map(|text| (*text).to_owned()).collect();
            let request = ImportRequest {
                reference: Some(Reference::parse(name)?),
                changes,
                ..ImportRequest::default()
            };
            println!("{}", import(&store, &mut std::io::stdin(), &request)?.id);
        }
        ["images"] => {
            for image in store.list()? {
                println!("{:?} {} {} {:?}", image.names, image.id.short(), image.size, image.repo_digests);
            }
        }
        ["tag", from, to] => store.tag(from, &Reference::parse(to)?)?,
        ["rmi", name] => {
            println!("{:?}", store.remove(name, RemoveOptions { force: true }, &|_| Ok(Vec::new()))?);
        }
        ["layers", name] => {
            for path in store.layer_paths(&store.resolve(name)?)? {
                println!("{}", path.display());
            }
        }
        ["bench", name] => {
            for _ in 0..5 {
                let begin = Instant::now();
                for _ in 0..1000 {
                    let image = store.resolve(name)?;
                    std::hint::black_box(store.layer_paths(&image)?);
                }
                println!("resolve + layer_paths: {:?}", begin.elapsed() / 1000);
            }
        }
        _ => return Err("unknown verb".into()),
    }
    Ok(())
}
