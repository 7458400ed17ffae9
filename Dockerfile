# One image for every platform: `plinth` and `probe`, linked statically, on a base that holds certificates and time
# zones and nothing that could be run.
#   docker build -t plinth --build-arg VERSION=1.0.0 --build-arg REVISION="$(git rev-parse HEAD)" .
# Only what every builder understands (BuildKit, buildah, kaniko) is used, and no cache outside of layers.

# The version of rust-toolchain.toml.
FROM docker.io/library/rust:1.95.0-slim-bookworm AS build
WORKDIR /src
# `--target` keeps the flags from build scripts and macros, which run here and are not to be static.
ENV RUSTFLAGS="-C target-feature=+crt-static" CARGO_INCREMENTAL=0
# For example `otel`.
ARG FEATURES=""

# Dependencies first, as a layer that lives until Cargo.lock changes: the crates are empty here.
COPY Cargo.toml Cargo.lock ./
COPY crates/api/Cargo.toml crates/api/
COPY crates/db/Cargo.toml crates/db/
COPY crates/probe/Cargo.toml crates/probe/
COPY crates/sim/Cargo.toml crates/sim/
COPY crates/webhooks/Cargo.toml crates/webhooks/
RUN mkdir crates/api/src crates/db/src crates/probe/src crates/sim/src crates/webhooks/src \
 && touch crates/api/src/lib.rs crates/db/src/lib.rs crates/sim/src/lib.rs crates/webhooks/src/lib.rs \
 && echo 'fn main() {}' > crates/api/src/main.rs \
 && echo 'fn main() {}' > crates/probe/src/main.rs \
 && cargo build --locked --profile image --target "$(rustc --print host-tuple)" \
      -p api -p probe --no-default-features --features "$FEATURES"

COPY crates crates
COPY migrations migrations
# Files keep their times when they are copied: cargo has to see that these are newer than the empty ones.
RUN find crates -name '*.rs' -exec touch {} + \
 && cargo build --locked --profile image --target "$(rustc --print host-tuple)" \
      -p api -p probe --no-default-features --features "$FEATURES" \
 && mkdir -p /out/bin /out/data \
 && cp target/*/image/plinth target/*/image/probe /out/bin/

# `--target tools`: the same beside pg_dump, pg_restore and a shell, for backups and whoever looks by hand.
# The client has to be as new as the server.
FROM docker.io/library/debian:trixie-slim AS tools
ARG POSTGRES=17
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates "postgresql-client-$POSTGRES" \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/bin/ /usr/local/bin/
COPY --from=build --chown=65532:65532 /out/data /data
WORKDIR /data
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK NONE
ENTRYPOINT ["/usr/local/bin/plinth"]

FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION="" REVISION=""
LABEL org.opencontainers.image.title="plinth" \
      org.opencontainers.image.description="A production API backend: sign-in, chat, subscriptions" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/bin/ /usr/local/bin/
# Where a volume for SQLite goes: DATABASE_URL=sqlite:///data/plinth.db
COPY --from=build --chown=65532:65532 /out/data /data
ENV APP_ENV=production HOST=0.0.0.0 PORT=8080 LOG_FORMAT=json APP_VERSION="$VERSION"
WORKDIR /
# Platforms whose volumes belong to root (Fly) build with RUN_AS=0:0.
ARG RUN_AS=65532:65532
USER $RUN_AS
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/plinth", "health"]
ENTRYPOINT ["/usr/local/bin/plinth"]
CMD ["serve"]
