//! Makes the SDK's client: credentials, endpoint, region, TLS.

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_types::service_config::ServiceConfigKey;

use crate::options::S3Options;

/// A client and the endpoint it uses, if that is not AWS's own.
pub(crate) struct Connection {
    pub client: Client,
    pub endpoint: Option<String>,
}

/// Looks everything up that the options leave open. Sends nothing to the store. Fails with a message.
pub(crate) async fn connect(options: &S3Options) -> Result<Connection, String> {
    let plain = options.endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
    let http = http_client(options, plain)?;
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(region(options).await))
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some((access, secret)) = &options.credentials {
        loader = loader.credentials_provider(Credentials::new(access, secret, None, None, "options"));
    }
    let sdk = loader.load().await;
    let endpoint = options.endpoint.clone().or_else(|| configured_endpoint(&sdk));
    let timeouts = TimeoutConfig::builder().connect_timeout(options.connect_timeout).build();
    let path_style = options.path_style.unwrap_or_else(|| endpoint.as_deref().is_some_and(|e| !is_aws(e)));
    let mut config = Builder::from(&sdk)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .force_path_style(path_style)
        // Bodies are in memory, so the checksum goes as a header, which every server takes.
        .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
        // What is read is authenticated by its reader; some servers answer ranges with the whole object's checksum.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    config.set_endpoint_url(endpoint.clone());
    Ok(Connection { client: Client::from_conf(config.build()), endpoint })
}

/// TLS by rustls with the system's root certificates (or `SSL_CERT_FILE`). Without any, only plain HTTP works.
fn http_client(options: &S3Options, plain: bool) -> Result<SharedHttpClient, String> {
    let mut builder = aws_smithy_http_client::Builder::new();
    builder.set_pool_max_idle_per_host(Some(options.connections));
    if !rustls_native_certs::load_native_certs().certs.is_empty() {
        Ok(builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https())
    } else if plain {
        Ok(builder.build_http())
    } else {
        Err("no root certificates found: install ca-certificates or set SSL_CERT_FILE".to_owned())
    }
}

/// Options, environment, profile, `us-east-1`. Never asks the metadata service, which would take seconds elsewhere.
async fn region(options: &S3Options) -> String {
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &options.profile {
        profile = profile.profile_name(name);
    }
    let chain = RegionProviderChain::first_try(options.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build());
    chain.region().await.map_or_else(|| "us-east-1".to_owned(), |region| region.to_string())
}

/// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, or the same of the profile.
fn configured_endpoint(sdk: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let of_service = key.ok().and_then(|key| sdk.service_config()?.load_config(key));
    of_service.or_else(|| sdk.endpoint_url().map(str::to_owned))
}

/// Whether AWS itself answers there: it knows the bucket by the host name.
fn is_aws(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

#[cfg(test)]
mod tests {
    use super::is_aws;

    #[test]
    fn aws_is_told_by_its_name() {
        assert!(is_aws("https://s3.eu-west-1.amazonaws.com"));
        assert!(is_aws("https://s3.cn-north-1.amazonaws.com.cn:443/"));
        assert!(!is_aws("http://127.0.0.1:8333"));
        assert!(!is_aws("https://amazonaws.com.example"));
    }
}
