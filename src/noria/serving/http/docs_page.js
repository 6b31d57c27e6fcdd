"use strict";
const read = (field) => {
  if (field.value === "") return null;
  if (field.dataset.kind === "text") return field.value;
  try { return JSON.parse(field.value); } catch { return field.value; }
};
const show = (output, text, bad) => {
  const shown = document.createElement("pre");
  shown.textContent = text;
  shown.className = bad ? "bad" : "";
  output.replaceChildren(shown);
};
for (const form of document.forms) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const row = {}, output = form.querySelector("output");
    for (const field of form.querySelectorAll("input")) {
      if (field.value !== "" || !field.dataset.optional) row[field.name] = read(field);
    }
    try {
      const button = event.submitter;
      const answer = await fetch(button && button.hasAttribute("formaction") ? button.formAction : form.action, {
        method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(row)});
      const text = await answer.text();
      let said = text;
      try { said = JSON.stringify(JSON.parse(text), null, 2); } catch { /* no JSON: as it is */ }
      show(output, answer.ok ? said : answer.status + " " + said, !answer.ok);
    } catch (error) {
      show(output, "the server was not reached: " + error.message, true);
    }
  });
}
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.of).textContent);
    button.textContent = "Copied";
  });
}
