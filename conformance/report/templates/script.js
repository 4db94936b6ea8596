"use strict";
// Everything can be read without this. It adds a theme switch, filters, copy buttons, and opens folds for print.
for (const element of document.querySelectorAll("[data-needs-script]")) element.hidden = false;

const root = document.documentElement;
const theme = document.getElementById("theme");
const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const name = () => { theme.textContent = dark() ? "Light theme" : "Dark theme"; };
try { if (localStorage.getItem("roadworthy-theme")) root.dataset.theme = localStorage.getItem("roadworthy-theme"); } catch { /* storage is off */ }
name();
theme.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  try { localStorage.setItem("roadworthy-theme", root.dataset.theme); } catch { /* storage is off */ }
  name();
});

for (const section of document.querySelectorAll("[data-filtered]")) {
  const search = section.querySelector("input[type=search]");
  const boxes = [...section.querySelectorAll("input[type=checkbox]")];
  const rows = [...section.querySelectorAll("tr[data-verdict]")];
  const said = section.querySelector("output");
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdicts = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !verdicts.has(row.dataset.verdict) || !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    for (const group of section.querySelectorAll("tbody.group")) {
      group.hidden = ![...group.querySelectorAll("tr[data-verdict]")].some((row) => !row.hidden);
    }
    said.textContent = `${shown} of ${rows.length} shown`;
  };
  search.addEventListener("input", apply);
  for (const box of boxes) box.addEventListener("change", apply);
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

const follow = () => {
  // A link to something behind a fold opens the fold.
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", follow);
follow();
addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });
