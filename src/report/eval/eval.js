"use strict";
// Shows the samples of a scenario one by one.
(() => {
  const { runs, scenarios } = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const [scenario, run, outcome] = ["scenario", "run", "outcome"].map(element);
  const ANY = "any";
  let at = 0;

  const fill = (select, options) => {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  };
  fill(scenario, scenarios.map(({ id }, i) => [i, id]));
  fill(run, [[ANY, "all"], ...runs.map((label, i) => [i, label])]);
  fill(outcome, [ANY, "secure", "insecure", "broken", "unknown"].map((name) => [name, name === ANY ? "all" : name]));

  const chosen = () =>
    (scenarios[scenario.value]?.samples ?? []).filter(
      (sample) =>
        (run.value === ANY || sample.run === Number(run.value)) &&
        (outcome.value === ANY || sample.outcome === outcome.value),
    );

  const describe = (sample, count) => {
    const verdict = document.createElement("b");
    verdict.className = sample.outcome;
    verdict.textContent = sample.outcome;
    const numbers = sample.numbers.length > 1 ? `samples ${sample.numbers.join(", ")}` : `sample ${sample.numbers[0]}`;
    const checks = `functional: ${sample.functional}, secure: ${sample.secure}`;
    element("which").replaceChildren(
      verdict,
      ` ${at + 1} of ${count} different ones; ${runs[sample.run]}, ${numbers}; ${checks}`,
    );
  };

  const piece = ([text, step, score]) => {
    const span = document.createElement("span");
    span.textContent = text;
    if (step !== undefined) {
      span.className = text.startsWith("\n") ? `t h${step} end` : `t h${step}`;
      span.title = `score ${score.toFixed(4)}`;
    }
    return span;
  };

  const show = () => {
    const samples = chosen();
    at = Math.max(0, Math.min(at, samples.length - 1));
    const sample = samples[at];
    element("previous").disabled = at === 0;
    element("next").disabled = at + 1 >= samples.length;
    element("reason").textContent = sample?.reason ?? "";
    element("prompt").textContent = scenarios[scenario.value]?.prompt ?? "";
    const pieces = sample?.pieces ?? [];
    element("completion").replaceChildren(...pieces.map(piece));
    // A page without scores has no legend.
    element("heat")?.toggleAttribute("hidden", !pieces.some(([, step]) => step !== undefined));
    element("ending").textContent = scenarios[scenario.value]?.ending ?? "";
    if (sample) describe(sample, samples.length);
    else element("which").textContent = "There is no such sample.";
  };

  const restart = () => {
    at = 0;
    show();
  };
  const step = (by) => () => {
    at += by;
    show();
  };
  [scenario, run, outcome].forEach((select) => select.addEventListener("change", restart));
  element("previous").addEventListener("click", step(-1));
  element("next").addEventListener("click", step(1));
  document.addEventListener("click", (event) => {
    const pick = event.target.closest?.(".pick");
    if (!pick) return;
    scenario.value = pick.dataset.scenario;
    run.value = ANY;
    outcome.value = ANY;
    restart();
    element("viewer").scrollIntoView();
    element("viewer").focus({ preventScroll: true });
  });
  show();
})();
