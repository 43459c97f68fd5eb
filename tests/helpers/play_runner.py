"""A runner of GitHub Actions, as much of one as the gate needs: it plays a workflow on a repository.

It parses the YAML, evaluates the expressions, orders jobs by `needs`, expands the matrix, and runs each
step's own shell with the environment and the files of a runner. Five actions are played by hand: checkout is
a `git clone` at the ref that the step names, artifacts go into the fake GitHub and come from it, by run, and
what goes to Pages is kept. Containers are not played: their steps run here.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from fake_github import REPOSITORY, TOKEN, FakeGitHub, zipped

_TOKENS = re.compile(r"\s*('(?:[^']|'')*'|==|!=|&&|\|\||[()!,]|[A-Za-z_][\w.-]*|\d+)")


class Expression:
    """`${{ … }}`: literals, contexts, comparison, and, or, not, and the functions that the workflows use."""

    def __init__(self, text: str, contexts: dict[str, Any]) -> None:
        self._tokens: list[str] = _TOKENS.findall(text)
        self._contexts = contexts

    def value(self) -> Any:
        made = self._or()
        assert not self._tokens, self._tokens
        return made

    def _take(self, *wanted: str) -> str | None:
        return self._tokens.pop(0) if self._tokens and self._tokens[0] in wanted else None

    def _or(self) -> Any:
        left = self._and()
        while self._take("||"):
            right = self._and()
            left = left or right
        return left

    def _and(self) -> Any:
        left = self._equal()
        while self._take("&&"):
            right = self._equal()
            left = left and right
        return left

    def _equal(self) -> Any:
        left = self._unary()
        while sign := self._take("==", "!="):
            right = self._unary()
            left = (str(left) == str(right)) == (sign == "==")
        return left

    def _unary(self) -> Any:
        if self._take("!"):
            return not self._unary()
        if self._take("("):
            made = self._or()
            assert self._take(")")
            return made
        token = self._tokens.pop(0)
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if self._take("("):
            arguments = []
            while not self._take(")"):
                arguments.append(self._or())
                self._take(",")
            return self._call(token, arguments)
        found: Any = self._contexts
        for name in token.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return "" if found is None else found

    def _call(self, name: str, arguments: list[Any]) -> Any:
        if name in ("always", "cancelled"):
            return name == "always"
        if name == "fromJSON":
            return json.loads(arguments[0])
        assert name == "format", name
        return arguments[0].format(*arguments[1:])


def expand(text: Any, contexts: dict[str, Any]) -> Any:
    """A value of the YAML with its expressions evaluated; one that is all expression keeps its type."""
    if not isinstance(text, str):
        return text
    whole = re.fullmatch(r"\s*\$\{\{(.*?)\}\}\s*", text, re.S)
    if whole:
        return Expression(whole[1], contexts).value()
    return re.sub(r"\$\{\{(.*?)\}\}", lambda m: str(Expression(m[1], contexts).value()), text, flags=re.S)


@dataclass
class Runner:
    """One workflow on one event."""

    repository: Path
    folder: Path
    fake: FakeGitHub
    environment: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    run_id: int = 1_000
    pages: dict[str, bytes] = field(default_factory=dict)
    deployed: bool = False
    results: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    log: str = ""

    def play(self, workflow: str, event: str, payload: dict[str, Any], sha: str) -> str:
        """Run all jobs; the workflow's conclusion."""
        text = (self.repository / ".github/workflows" / workflow).read_text()
        jobs = yaml.safe_load(text)["jobs"]
        self.results, self.outputs = {}, {}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "event.json").write_text(json.dumps(payload))
        github = {
            "event": payload,
            "event_name": event,
            "repository": REPOSITORY,
            "sha": sha,
            "token": TOKEN,
            "ref_name": "main",
            "ref": payload.get("ref", "refs/heads/main"),
        }
        for name, job in jobs.items():  # in the file's order, which is that of `needs`
            needs = {
                other: {"result": self.results[other], "outputs": self.outputs[other]}
                for other in job.get("needs", [])
            }
            contexts = {
                "github": github,
                "vars": self.variables,
                # This repository's secrets are those of environments, which only their jobs are given.
                "secrets": self.secrets if "environment" in job else {},
                "needs": needs,
                "inputs": payload.get("inputs", {}),
            }
            self._job(name, job, contexts)
        return "failure" if "failure" in self.results.values() else "success"

    def _job(self, name: str, job: dict[str, Any], contexts: dict[str, Any]) -> None:
        self.outputs[name] = {}
        condition = str(job.get("if", ""))
        ready = all(need["result"] == "success" for need in contexts["needs"].values())
        if not (ready or "always()" in condition or "cancelled()" in condition) or (
            condition and not Expression(condition, contexts).value()
        ):
            self.results[name] = "skipped"
            return
        legs = expand(job.get("strategy", {}).get("matrix", {}).get("leg", [""]), contexts)
        good = True
        for leg in legs:
            good = self._steps(f"{name}-{leg}", job, {**contexts, "matrix": {"leg": leg}}) and good
        self.results[name] = "success" if good else "failure"
        self.outputs[name] = {
            key: expand(value, {**contexts, "steps": self._seen})
            for key, value in job.get("outputs", {}).items()
        }

    def _steps(self, name: str, job: dict[str, Any], contexts: dict[str, Any]) -> bool:
        home = self.folder / name
        workspace = home / "workspace"
        workspace.mkdir(parents=True)
        self._seen: dict[str, Any] = {}
        self._summary = home / "summary.md"
        self._permissions = job["permissions"]
        contexts = {**contexts, "steps": self._seen}
        good = True
        for number, step in enumerate(job["steps"]):
            condition = str(step.get("if", ""))
            if not good and "always()" not in condition:
                continue
            if condition and not Expression(condition, contexts).value():
                continue
            done = self._step(step, contexts, workspace, home / f"step{number}")
            good = (done or bool(step.get("continue-on-error"))) and good
        self.summaries[name] = self._summary.read_text() if self._summary.exists() else ""
        return good

    def _step(self, step: dict[str, Any], contexts: dict[str, Any], workspace: Path, home: Path) -> bool:
        with_ = {key: expand(value, contexts) for key, value in step.get("with", {}).items()}
        env = {key: str(expand(value, contexts)) for key, value in step.get("env", {}).items()}
        uses = step.get("uses", "")
        if uses.startswith("actions/checkout@"):
            assert with_["persist-credentials"] is False
            return self._checkout(workspace, str(with_.get("ref") or contexts["github"]["sha"]))
        if uses.startswith("actions/upload-artifact@"):
            return self._upload(workspace, str(with_["name"]), str(with_["path"]))
        if uses.startswith("actions/download-artifact@"):
            return self._download(workspace, with_)
        if uses.startswith("actions/upload-pages-artifact@"):
            self.pages = _files(workspace / str(with_["path"]))
            return bool(self.pages)
        if uses.startswith("actions/deploy-pages@"):
            self.deployed = bool(self.pages)
            return self.deployed
        if uses.startswith("./"):
            return self._composite(step, workspace / uses, with_, (contexts, env, workspace, home))
        assert not uses, uses
        code, outputs = self._shell(step["run"], contexts, env, workspace, home)
        self._seen[step.get("id", "")] = {"outputs": outputs}
        return code == 0

    def _composite(self, step: dict[str, Any], action: Path, with_: dict[str, Any], around: Any) -> bool:
        contexts, env, workspace, home = around
        described = yaml.safe_load((action / "action.yml").read_text())
        assert not with_.keys() - described["inputs"].keys()
        inputs = {name: with_.get(name, one.get("default", "")) for name, one in described["inputs"].items()}
        inner = {**contexts, "inputs": inputs, "steps": {}}
        good = True
        for number, part in enumerate(described["runs"]["steps"]):
            made = {key: str(expand(value, inner)) for key, value in part.get("env", {}).items()}
            made = {**env, **made, "GITHUB_ACTION_PATH": str(action)}
            code, outputs = self._shell(part["run"], inner, made, workspace, home / str(number))
            inner["steps"][part.get("id", "")] = {"outputs": outputs}
            good = code == 0
            if not good:
                break
        given = {name: expand(one["value"], inner) for name, one in described["outputs"].items()}
        self._seen[step.get("id", "")] = {"outputs": given}
        return good

    def _shell(
        self, script: str, contexts: dict[str, Any], env: dict[str, str], workspace: Path, home: Path
    ) -> tuple[int, dict[str, str]]:
        assert "${{" not in script, "an expression in a script is code that a stranger can write"
        home.mkdir(parents=True)
        output = home / "output"
        output.touch()
        made = {
            **self.environment,
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": self.fake.url,
            "GITHUB_EVENT_NAME": contexts["github"]["event_name"],
            "GITHUB_EVENT_PATH": str(self.folder / "event.json"),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_PATH": str(home / "path"),
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_REPOSITORY_OWNER": REPOSITORY.split("/")[0],
            "GITHUB_SHA": contexts["github"]["sha"],
            **_pull_request(contexts["github"]),
            "GITHUB_STEP_SUMMARY": str(self._summary),
            "GITHUB_WORKSPACE": str(workspace),
            "RUNNER_TEMP": str(home),
            **env,
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=workspace,
            env=made,
            capture_output=True,
            text=True,
            timeout=240,
        )
        self.log += done.stdout + done.stderr
        return done.returncode, _outputs(output.read_text())

    def _checkout(self, workspace: Path, ref: str) -> bool:
        for words in (["clone", "-q", str(self.repository), "."], ["checkout", "-q", "--detach", ref]):
            subprocess.run(["git", *words], cwd=workspace, check=True, timeout=60, env=dict(os.environ))
        return True

    def _upload(self, workspace: Path, name: str, paths: str) -> bool:
        """One path is a folder's content or a file; of several the common folder is the artifact's root."""
        places = [workspace / path for path in paths.split()]
        single = places[0] if places[0].is_dir() else places[0].parent
        root = single if len(places) == 1 else Path(os.path.commonpath(places))
        files: dict[str, bytes] = {}
        for place in places:
            found = (
                _files(place)
                if place.is_dir()
                else {place.name: place.read_bytes()}
                if place.is_file()
                else {}
            )
            base = place if place.is_dir() else place.parent
            files |= {str((base / path).relative_to(root)): data for path, data in found.items()}
        shown = not any(part.startswith(".") for part in Path(paths.split()[0]).parts)
        if files and shown:  # hidden files and folders are left out, as upload-artifact does
            self.fake.kept.setdefault(self.run_id, {})[name] = files
        if len(files) == 1:
            ((inner, data),) = files.items()
            self.fake.artifacts[name] = zipped(data, name=inner)
        return True

    def _download(self, workspace: Path, with_: dict[str, Any]) -> bool:
        if "run-id" in with_:
            assert with_["github-token"] == TOKEN
            assert self._permissions.get("actions") == "read", "another run's artifacts need it"
        there = self.fake.kept.get(int(with_.get("run-id", self.run_id)), {})
        asked = str(with_.get("name") or with_.get("pattern"))
        names = [name for name in there if fnmatch.fnmatchcase(name, asked)]
        apart = "pattern" in with_ and not with_.get("merge-multiple")
        for name in names:
            for path, data in there[name].items():
                target = workspace / str(with_["path"]) / (name if apart else "") / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        return bool(names) or "pattern" in with_


def _pull_request(github: dict[str, Any]) -> dict[str, str]:
    """What GitHub tells a job of a pull request's branch and merge; other events have neither."""
    if github["event_name"] != "pull_request":
        return {}
    pull = github["event"]["pull_request"]
    return {"GITHUB_BASE_REF": pull["base"]["ref"], "GITHUB_REF": f"refs/pull/{pull['number']}/merge"}


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _outputs(text: str) -> dict[str, str]:
    """The outputs file: `name=value`, or `name<<END`, lines, `END`."""
    found, lines = {}, text.splitlines()
    while lines:
        line = lines.pop(0)
        if "<<" in line:
            name, end = line.split("<<", 1)
            value = []
            while (line := lines.pop(0)) != end:
                value.append(line)
            found[name] = "\n".join(value)
        elif "=" in line:
            name, value_ = line.split("=", 1)
            found[name] = value_
    return found
