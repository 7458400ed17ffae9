#!/usr/bin/env python3
"""Compares what stands in files for platforms with what the code understands, and says each difference.

Variables have to be ones that Plinth reads, paths of health checks ones that it serves, and the time that a platform
gives it to stop longer than it takes. Links in the docs have to lead to files.
"""
import json
import pathlib
import re
import sys
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Three seconds of notice before SHUTDOWN_TIMEOUT, two to close behind it.
AROUND = 5
# What the image, PostgreSQL's and Grafana's images and the files themselves read.
OTHERS = {
    "DOMAIN", "UPSTREAM", "IMAGE", "VERSION", "POSTGRES_PASSWORD", "POSTGRES_SUPERUSER_PASSWORD", "APP_PASSWORD",
    "GRAFANA_PASSWORD",
}

wrong = []


def read(path):
    return (ROOT / path).read_text()


def known_variables():
    example = read(".env.example")
    names = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", example, re.M))
    for also in re.findall(r"^# Also: (.*)$", example, re.M):
        names |= {name.strip() for name in also.split(",")}
    return names


def variables(where, names):
    for name in sorted(set(names) - KNOWN - OTHERS):
        if not (name.startswith("GF_") or name.removesuffix("_FILE") in KNOWN):
            wrong.append(f"{where} sets {name}, which nothing reads")


def path(where, path):
    if path not in ROUTES:
        wrong.append(f"{where} checks {path}, which is not served")


def stops_in_time(where, given, takes=25):
    if given < takes + AROUND:
        wrong.append(f"{where} kills after {given} s what takes {takes + AROUND}")


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def fly(name):
    config = tomllib.loads(read(name))
    variables(name, config["env"])
    for check in config["http_service"]["checks"]:
        path(name, check["path"])
    stops_in_time(name, seconds(config["kill_timeout"]), int(config["env"]["SHUTDOWN_TIMEOUT"]))
    if config["kill_signal"] != "SIGTERM" or int(config["env"]["PORT"]) != config["http_service"]["internal_port"]:
        wrong.append(f"{name} does not stop by SIGTERM, or asks another port")
    if "mounts" in config and "release_command" in config["deploy"]:
        wrong.append(f"{name} has a release command, which has no volume")


def railway():
    name = ".railway/railway.ts"
    text = read(name)
    variables(name, re.findall(r"^\s+([A-Z][A-Z0-9_]+):", text, re.M))
    path(name, re.search(r'healthcheck: "(.*)"', text)[1])
    takes = int(re.search(r'SHUTDOWN_TIMEOUT: "(\d+)"', text)[1])
    stops_in_time(name, int(re.search(r"drainingSeconds: (\d+)", text)[1]), takes)


def render():
    name = "render.yaml"
    config = yaml.safe_load(read(name))
    service = config["services"][0]
    env = {entry["key"]: entry.get("value") for entry in service["envVars"]}
    variables(name, env)
    path(name, service["healthCheckPath"])
    stops_in_time(name, service["maxShutdownDelaySeconds"], int(env["SHUTDOWN_TIMEOUT"]))
    made = {each["name"] for each in config["services"] + config["databases"]}
    for entry in service["envVars"]:
        source = entry.get("fromDatabase") or entry.get("fromService")
        if source and source["name"] not in made:
            wrong.append(f"{name} takes {entry['key']} from {source['name']}, which it does not make")


def compose():
    name = "deploy/compose.yaml"
    config = yaml.safe_load(read(name))
    for service in config["services"].values():
        if "image" in service and not re.search(r":[\w${}:.-]+$", service["image"]):
            wrong.append(f"{name} takes {service['image']} in any version")
    variables(name, config["services"]["api"]["environment"])
    variables(name, re.findall(r"\$\{([A-Z_]+)", read(name)))
    variables("deploy/compose.env.example", re.findall(r"^([A-Z_]+)=", read("deploy/compose.env.example"), re.M))
    stops_in_time(name, seconds(config["services"]["api"]["stop_grace_period"]))


def systemd():
    name = next(ROOT.glob("deploy/*.service")).relative_to(ROOT)
    unit = read(name)
    stops_in_time(name, int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1]))
    variables(name, re.findall(r"([A-Z_]+)=", re.search(r"^Environment=(.*)$", unit, re.M)[1]))


def dockerfile():
    text = read("Dockerfile")
    toolchain = tomllib.loads(read("rust-toolchain.toml"))["toolchain"]["channel"]
    if f"library/rust:{toolchain}-" not in text:
        wrong.append(f"the Dockerfile does not build with {toolchain}, which rust-toolchain.toml names")
    for manifest in ROOT.glob("crates/*/Cargo.toml"):
        if f"COPY crates/{manifest.parent.name}/Cargo.toml" not in text:
            wrong.append(f"the Dockerfile does not know crates/{manifest.parent.name}")


def links():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in link and not link.startswith("mailto:") and not (page.parent / link).exists():
                wrong.append(f"{page.relative_to(ROOT)} links to {link}, which is not there")


KNOWN = known_variables()
ROUTES = json.loads(read("docs/openapi.json"))["paths"]
fly("fly.toml")
fly("deploy/fly.sqlite.toml")
for check in (railway, render, compose, systemd, dockerfile, links):
    check()
print("\n".join(wrong) or "the platforms' files say what the code understands")
sys.exit(1 if wrong else 0)
