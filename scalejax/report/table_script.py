"""The script of tables in a page: sorting, and copies as LaTeX and as Markdown."""

TABLES = r"""
// Sorts a table by the column whose heading is clicked; a second click reverses the order.
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const key = row => row.cells[column].dataset.value === undefined
      ? row.cells[column].textContent : Number(row.cells[column].dataset.value);
    const order = (a, b) => typeof a === 'string' ? a.localeCompare(b) : a - b;
    const rows = [...table.tBodies[0].rows].sort((a, b) => order(key(a), key(b)) * (down ? -1 : 1));
    table.tBodies[0].append(...rows);
  }));
}

// Characters that mean something else to LaTeX or that its fonts lack.
const LATEX = {
  '\\': '\\textbackslash{}', '&': '\\&', '%': '\\%', '$': '\\$', '#': '\\#', '_': '\\_',
  '{': '\\{', '}': '\\}', '~': '\\textasciitilde{}', '^': '\\textasciicircum{}',
  '±': '$\\pm$', '−': '$-$', '–': '--', '<': '$<$', '>': '$>$',
};

const FORMS = {
  latex(rows, isNumber) {
    const line = row => row.map(text => [...text].map(c => LATEX[c] ?? c).join('')).join(' & ')
      + ' \\\\';
    const [head, ...body] = rows.map(line);
    const columns = isNumber.map(number => number ? 'r' : 'l').join('');
    return [`\\begin{tabular}{${columns}}`, '\\toprule', head, '\\midrule', ...body,
      '\\bottomrule', '\\end{tabular}', ''].join('\n');
  },
  markdown(rows, isNumber) {
    const line = row => `| ${row.map(text => text.replaceAll('|', '\\|')).join(' | ')} |`;
    const [head, ...body] = rows.map(line);
    const rule = `| ${isNumber.map(number => number ? '---:' : '---').join(' | ')} |`;
    return [head, rule, ...body, ''].join('\n');
  },
};

function copy(text) {
  // Browsers give pages the clipboard only over https and from files.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.body.appendChild(document.createElement('textarea'));
  area.value = text;
  area.select();
  document.execCommand('copy');
  area.remove();
  return Promise.resolve();
}

for (const button of document.querySelectorAll('.copy button')) {
  const label = button.textContent;
  button.addEventListener('click', async () => {
    const table = button.parentElement.nextElementSibling.querySelector('table');
    const rows = [...table.rows].map(row => [...row.cells].map(cell => cell.textContent));
    const isNumber = [...table.rows[0].cells].map(cell => cell.classList.contains('number'));
    try {
      await copy(FORMS[button.dataset.form](rows, isNumber));
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'This browser refused the clipboard';
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  });
}
"""
