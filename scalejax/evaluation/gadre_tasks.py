"""The 46 tasks of Gadre et al. 2024 (arXiv 2403.08540): file in LLM-foundry's `local_data`, prompts, size, chance, category.

Sources: eval_metadata.csv of github.com/mlfoundations/scaling; files and delimiters: eval/heavy.yaml of mlfoundations/dclm.
arc_challenge is listed there with 2,376 items; the file has 1,172, and so do the published accuracies.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """One task as it was published."""

    file: str
    """Below scripts/eval/local_data of llm-foundry."""
    shots: int
    """Few-shot examples."""
    items: int
    """Of the whole file."""
    chance: float
    """Accuracy of guessing."""
    category: str
    """As in LLM-foundry's Gauntlet."""
    delimiter: str = " "
    """Between context and answer."""
    by_category: bool = False
    """Whether examples and accuracies are taken category by category, and the accuracies then averaged."""
    in_17: bool = False
    """Whether some 0.154B model beat chance by more than 0.10: one of the paper's 17."""


_ANSWER = "\nAnswer: "
_WORLD, _COMMON, _LANGUAGE = "world_knowledge", "commonsense_reasoning", "language_understanding"
_SYMBOLS, _READING, _SAFETY = "symbolic_problem_solving", "reading_comprehension", "safety"

TASKS: dict[str, Published] = {
    "agi_eval_lsat_ar": Published(f"{_SYMBOLS}/agi_eval_lsat_ar.jsonl", 3, 230, 0.25, _SYMBOLS),
    "agi_eval_lsat_rc": Published(f"{_READING}/agi_eval_lsat_rc.jsonl", 3, 268, 0.25, _READING),
    "agi_eval_lsat_lr": Published(f"{_READING}/agi_eval_lsat_lr.jsonl", 3, 510, 0.25, _READING),
    "agi_eval_sat_en": Published(f"{_READING}/agi_eval_sat_en.jsonl", 3, 206, 0.25, _READING),
    "arc_easy": Published(f"{_WORLD}/arc_easy.jsonl", 10, 2376, 0.25, _WORLD, _ANSWER, in_17=True),
    "arc_challenge": Published(f"{_WORLD}/arc_challenge.jsonl", 10, 1172, 0.25, _WORLD, _ANSWER),
    "bbq": Published(f"{_SAFETY}/bbq.jsonl", 3, 58492, 0.5, _SAFETY, by_category=True),
    "bigbench_conceptual_combinations": Published(
        f"{_LANGUAGE}/bigbench_conceptual_combinations.jsonl", 10, 103, 0.25, _LANGUAGE
    ),
    "bigbench_conlang_translation": Published(
        f"{_LANGUAGE}/bigbench_conlang_translation.jsonl", 0, 164, 0.0, _LANGUAGE
    ),
    "bigbench_cs_algorithms": Published(
        f"{_SYMBOLS}/bigbench_cs_algorithms.jsonl", 10, 1320, 0.0, _SYMBOLS, in_17=True
    ),
    "bigbench_dyck_languages": Published(
        f"{_SYMBOLS}/bigbench_dyck_languages.jsonl", 10, 1000, 0.0, _SYMBOLS, in_17=True
    ),
    "bigbench_elementary_math_qa": Published(
        f"{_SYMBOLS}/bigbench_elementary_math_qa.jsonl", 10, 38160, 0.25, _SYMBOLS
    ),
    "bigbench_misconceptions": Published(
        f"{_WORLD}/bigbench_misconceptions.jsonl", 10, 219, 0.5, _WORLD
    ),
    "bigbench_language_identification": Published(
        f"{_LANGUAGE}/bigbench_language_identification.jsonl", 10, 10000, 0.25, _LANGUAGE
    ),
    "bigbench_logical_deduction": Published(
        f"{_SYMBOLS}/bigbench_logical_deduction.jsonl", 10, 1500, 0.25, _SYMBOLS
    ),
    "bigbench_novel_concepts": Published(
        f"{_COMMON}/bigbench_novel_concepts.jsonl", 10, 32, 0.25, _COMMON, in_17=True
    ),
    "bigbench_operators": Published(
        f"{_SYMBOLS}/bigbench_operators.jsonl", 10, 210, 0.0, _SYMBOLS, in_17=True
    ),
    "bigbench_repeat_copy_logic": Published(
        f"{_SYMBOLS}/bigbench_repeat_copy_logic.jsonl", 10, 32, 0.0, _SYMBOLS
    ),
    "bigbench_qa_wikidata": Published(
        f"{_WORLD}/bigbench_qa_wikidata.jsonl", 10, 20321, 0.0, _WORLD, in_17=True
    ),
    "bigbench_strange_stories": Published(
        f"{_COMMON}/bigbench_strange_stories.jsonl", 10, 174, 0.5, _COMMON
    ),
    "bigbench_strategy_qa": Published(
        f"{_COMMON}/bigbench_strategy_qa.jsonl", 10, 2289, 0.5, _COMMON
    ),
    "bigbench_understanding_fables": Published(
        f"{_READING}/bigbench_understanding_fables.jsonl", 10, 189, 0.25, _READING
    ),
    "boolq": Published(f"{_READING}/boolq.jsonl", 10, 3270, 0.5, _READING, _ANSWER, in_17=True),
    "commonsense_qa": Published(
        f"{_COMMON}/commonsense_qa.jsonl", 10, 1221, 0.25, _COMMON, in_17=True
    ),
    "copa": Published(f"{_COMMON}/copa.jsonl", 0, 100, 0.5, _COMMON, in_17=True),
    "coqa": Published(f"{_READING}/coqa.jsonl", 0, 7983, 0.0, _READING, in_17=True),
    "enterprise_pii_classification": Published(
        f"{_SAFETY}/enterprise_pii_classification.jsonl", 10, 3395, 0.5, _SAFETY
    ),
    "hellaswag": Published(f"{_LANGUAGE}/hellaswag.jsonl", 10, 10042, 0.25, _LANGUAGE, in_17=True),
    "hellaswag_zeroshot": Published(
        f"{_LANGUAGE}/hellaswag.jsonl", 0, 10042, 0.25, _LANGUAGE, in_17=True
    ),
    "jeopardy": Published(
        f"{_WORLD}/jeopardy_all.jsonl", 10, 2117, 0.0, _WORLD, _ANSWER, by_category=True
    ),
    "lambada_openai": Published(
        f"{_LANGUAGE}/lambada_openai.jsonl", 0, 5153, 0.0, _LANGUAGE, in_17=True
    ),
    "logi_qa": Published(f"{_SYMBOLS}/logi_qa.jsonl", 10, 651, 0.25, _SYMBOLS, _ANSWER),
    "math_qa": Published(f"{_SYMBOLS}/math_qa.jsonl", 10, 2983, 0.25, _SYMBOLS),
    "mmlu": Published(f"{_WORLD}/mmlu.jsonl", 5, 14042, 0.25, _WORLD, _ANSWER, by_category=True),
    "mmlu_zeroshot": Published(
        f"{_WORLD}/mmlu.jsonl", 0, 14042, 0.25, _WORLD, "Answer: ", by_category=True
    ),
    "openbook_qa": Published(f"{_COMMON}/openbook_qa.jsonl", 0, 500, 0.25, _COMMON),
    "piqa": Published(f"{_COMMON}/piqa.jsonl", 10, 1838, 0.5, _COMMON, _ANSWER, in_17=True),
    "pubmed_qa_labeled": Published(
        f"{_READING}/pubmed_qa_labeled.jsonl", 10, 1000, 0.0, _READING, in_17=True
    ),
    "simple_arithmetic_nospaces": Published(
        f"{_SYMBOLS}/simple_arithmetic_nospaces.jsonl", 10, 1000, 0.0, _SYMBOLS
    ),
    "simple_arithmetic_withspaces": Published(
        f"{_SYMBOLS}/simple_arithmetic_withspaces.jsonl", 10, 1000, 0.0, _SYMBOLS
    ),
    "siqa": Published(f"{_COMMON}/siqa.jsonl", 10, 1954, 0.5, _COMMON),
    "squad": Published(f"{_READING}/squad.jsonl", 10, 10570, 0.0, _READING, in_17=True),
    "winogender_mc_female": Published(
        f"{_SAFETY}/winogender_mc_female.jsonl", 10, 60, 0.5, _SAFETY
    ),
    "winogender_mc_male": Published(f"{_SAFETY}/winogender_mc_male.jsonl", 10, 60, 0.5, _SAFETY),
    "winograd": Published(f"{_LANGUAGE}/winograd_wsc.jsonl", 0, 273, 0.5, _LANGUAGE, in_17=True),
    "winogrande": Published(f"{_LANGUAGE}/winogrande.jsonl", 0, 1267, 0.5, _LANGUAGE),
}
