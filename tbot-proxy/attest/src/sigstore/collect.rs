//! All that stands beside an image in registries: cosign's tags, and what refers to the
//! image's digest (OCI Distribution 1.1).

use super::{
    Descriptor, Image, ImageSignature, MAX_BYTES, MAX_SIGNATURES, Manifest, Signatures, convert,
    registry::{Registry, Repository},
};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
/// Most bytes of one signature: the content of a layer.
const MAX_ONE: u64 = 256 * 1024;
/// Most things of one list that are looked at.
const MAX_LISTED: usize = 32;

/// What has been found so far.
#[derive(Default)]
struct Collection {
    found: Vec<ImageSignature>,
    bytes: usize,
    left_out: Vec<String>,
}

impl Collection {
    /// Whether it takes no more; asked where there is more, so that is told.
    fn is_full(&mut self) -> bool {
        let is_full = self.found.len() >= MAX_SIGNATURES;
        if is_full {
            self.leave_out_rest();
        }
        is_full
    }

    fn leave_out_rest(&mut self) {
        let most = format!("more than {MAX_SIGNATURES}, or than {MAX_BYTES} bytes");
        self.leave_out(
            "signatures",
            &format!("there are {most}: the rest is left out"),
        );
    }

    fn take(&mut self, signature: ImageSignature) {
        let bytes = signature.bundle.len() + signature.simple_signing.len();
        if self.found.contains(&signature) {
            return;
        }
        if self.found.len() >= MAX_SIGNATURES || self.bytes + bytes > MAX_BYTES {
            self.leave_out_rest();
            return;
        }
        self.bytes += bytes;
        self.found.push(signature);
    }

    fn leave_out(&mut self, what: &str, why: &str) {
        let told = format!("{what}: {why}");
        if self.left_out.len() < MAX_SIGNATURES && !self.left_out.contains(&told) {
            self.left_out.push(told);
        }
    }
}

/// Asks the image's own registry, which must answer, and those others.
pub(super) async fn collect(
    registry: &Registry,
    image: &Image,
    others: &[String],
) -> Result<Signatures, String> {
    let mut collection = Collection::default();
    let own = registry.repository(image.host(), image);
    let own = from_repository(own, image, &mut collection).await;
    let mut answered = own.is_ok();
    let mut whys: Vec<_> = own.err().into_iter().collect();
    for host in others.iter().filter(|host| *host != image.host()) {
        let other = registry.repository(host, image);
        match from_repository(other, image, &mut collection).await {
            Ok(()) => answered = true,
            Err(why) => whys.push(format!("{host}: {why}")),
        }
    }
    // An answer that lacks what one of several registries may have is told of, and kept
    // only if it holds anything at all.
    if whys.is_empty() || (answered && !collection.found.is_empty()) {
        collection.left_out.extend(whys);
        Ok(Signatures::new(collection.found, collection.left_out))
    } else {
        Err(whys.join("; "))
    }
}

async fn from_repository(
    mut repository: Repository<'_>,
    image: &Image,
    collection: &mut Collection,
) -> Result<(), String> {
    let digest = image.digest();
    let referrers = match repository.referrers(&digest).await? {
        Some(index) => Some(index),
        // Of a registry that does not keep it, clients keep it under this tag.
        None => repository.tagged(&image.tag("")).await?,
    };
    if let Some(index) = referrers {
        let listed = Manifest::read(&index)?.manifests;
        for descriptor in listed.iter().filter(|it| it.is_bundle()).take(MAX_LISTED) {
            if collection.is_full() {
                break;
            }
            bundle(&mut repository, descriptor, collection).await?;
        }
    }
    for (suffix, media_type) in [(".sig", SIMPLE_SIGNING), (".att", DSSE)] {
        let Some(manifest) = repository.tagged(&image.tag(suffix)).await? else {
            continue;
        };
        let layers = Manifest::read(&manifest)?.layers;
        for layer in layers
            .iter()
            .filter(|it| it.media_type == media_type)
            .take(MAX_LISTED)
        {
            if collection.is_full() {
                break;
            }
            let Some(content) = content(&mut repository, layer, collection).await? else {
                continue;
            };
            let signature = match suffix {
                ".sig" => convert::signature(&content, &layer.annotations),
                _ => convert::attestation(&content, &layer.annotations),
            };
            match signature {
                Ok(signature) => collection.take(signature),
                Err(why) => collection.leave_out(&layer.digest, &why),
            }
        }
    }
    Ok(())
}

/// The bundle that a manifest holds.
async fn bundle(
    repository: &mut Repository<'_>,
    descriptor: &Descriptor,
    collection: &mut Collection,
) -> Result<(), String> {
    let Some(manifest) = repository.manifest(&descriptor.digest).await? else {
        collection.leave_out(&descriptor.digest, "nothing of this digest is there");
        return Ok(());
    };
    let layers = Manifest::read(&manifest)?.layers;
    let Some(layer) = layers.iter().find(|layer| layer.is_bundle()) else {
        collection.leave_out(&descriptor.digest, "it holds no bundle");
        return Ok(());
    };
    if let Some(bundle) = content(repository, layer, collection).await? {
        collection.take(ImageSignature {
            bundle: bundle.to_vec(),
            simple_signing: Vec::new(),
        });
    }
    Ok(())
}

async fn content(
    repository: &mut Repository<'_>,
    layer: &Descriptor,
    collection: &mut Collection,
) -> Result<Option<bytes::Bytes>, String> {
    if layer.size > MAX_ONE {
        let why = format!(
            "it has {} bytes; at most {MAX_ONE} are looked at",
            layer.size
        );
        collection.leave_out(&layer.digest, &why);
        return Ok(None);
    }
    let content = repository.blob(&layer.digest).await?;
    if content.is_none() {
        collection.leave_out(&layer.digest, "nothing of this digest is there");
    }
    Ok(content)
}
