// Light, dark, or as the system has it.

const KEY = "spiritlm.theme";
const THEMES = ["system", "light", "dark"];

export function setUpTheme(button) {
  let theme = localStorage.getItem(KEY) ?? "system";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    dispatchEvent(new Event("themechange"));
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem(KEY, theme);
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}
