"use strict";
// Shows a token's score and where the guard looked, for the token under the pointer or with the focus.
(() => {
  const files = JSON.parse(document.getElementById("data").textContent).files;
  const tip = document.getElementById("tip");
  let now = null;

  const element = (name, className, text) => {
    const made = document.createElement(name);
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const layerRow = (layer, weight) => {
    const row = element("div", "row");
    const track = element("span", "track");
    const fill = element("span", "fill");
    fill.style.width = `${100 * weight}%`;
    track.append(fill);
    row.append(element("span", "", `layer ${layer}`), track, element("span", "", `${(100 * weight).toFixed(1)} %`));
    return row;
  };

  const describe = (file, [id, text, score, attention]) => {
    const token = element("div", "token");
    token.append(element("div", "piece code", text));
    token.append(element("div", "", `score ${score.toFixed(4)}, token ${id}`));
    attention.forEach((weight, i) => token.append(layerRow(file.layers[i], weight)));
    return token;
  };

  const place = (span) => {
    const at = span.getClientRects()[0] || span.getBoundingClientRect();
    const box = tip.getBoundingClientRect();
    const below = at.bottom + 6 + box.height < innerHeight;
    const left = Math.max(8, Math.min(at.left, innerWidth - box.width - 8));
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.max(8, below ? at.bottom + 6 : at.top - box.height - 6)}px`;
  };

  const hide = () => {
    tip.hidden = true;
    if (now) {
      now.forEach((span) => span.classList.remove("now"));
      now[0].removeAttribute("aria-describedby");
    }
    now = null;
  };

  const show = (span) => {
    hide();
    const section = span.closest(".file");
    const file = files[section.dataset.file];
    const [first, last] = span.dataset.t.split("-").map(Number);
    // A token may stand on two lines, and several may share a character.
    now = [span, ...[...section.querySelectorAll(`[data-t="${span.dataset.t}"]`)].filter((s) => s !== span)];
    now.forEach((part) => part.classList.add("now"));
    tip.replaceChildren(...file.tokens.slice(first, (last ?? first) + 1).map((token) => describe(file, token)));
    tip.hidden = false;
    span.setAttribute("aria-describedby", "tip");
    place(span);
  };

  const tokenOf = (event) => event.target.closest?.(".t");

  document.addEventListener("pointerover", (event) => (tokenOf(event) ? show(tokenOf(event)) : hide()));
  document.addEventListener("focusin", (event) => (tokenOf(event) ? show(tokenOf(event)) : hide()));
  document.addEventListener("scroll", hide, { passive: true });

  // One stop of the tab key for each file; arrows go from token to token.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const token = tokenOf(event);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!token || !step) return;
    const all = [...token.closest(".file").querySelectorAll(".t")];
    const next = all[all.indexOf(token) + step];
    if (!next) return;
    event.preventDefault();
    token.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    show(next);
  });
})();
