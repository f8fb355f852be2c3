"""The 46 downstream tasks of Gadre et al. 2024 (arXiv 2403.08540).

Sizes, shots, chance accuracies and categories: eval_metadata.csv of
github.com/mlfoundations/scaling. Files and delimiters: eval/heavy.yaml of
mlfoundations/dclm. The CSV lists arc_challenge with 2,376 items, but its file has
1,172, and so do the published accuracies.
"""

from typing import NamedTuple


class GadreTask(NamedTuple):
    """One task as published."""

    name: str
    category: str
    """Category in LLM-foundry's Gauntlet, and the folder of the task's file."""
    shots: int
    """Number of few-shot examples."""
    item_count: int
    """Items in the whole file."""
    chance_accuracy: float
    """Accuracy of guessing."""
    delimiter: str = " "
    """Text between context and answer."""
    by_category: bool = False
    """Whether the task has categories.

    Few-shot examples then come from the item's own category, and the task's accuracy is
    the mean of its categories' accuracies.
    """
    in_17: bool = False
    """Whether the task is one of the paper's 17.

    They are those in which some 0.154B model beats chance accuracy by more than 0.10.
    """
    stem: str = ""
    """Name of the task's file without .jsonl, where it is not the task's name."""

    @property
    def file(self) -> str:
        """Path of the task's file below scripts/eval/local_data of llm-foundry."""
        return f"{self.category}/{self.stem or self.name}.jsonl"


_WORLD = "world_knowledge"
_COMMONSENSE = "commonsense_reasoning"
_LANGUAGE = "language_understanding"
_SYMBOLIC = "symbolic_problem_solving"
_READING = "reading_comprehension"
_SAFETY = "safety"
_ANSWER = "\nAnswer: "

# Name, category, shots, items, chance accuracy; then what differs from the defaults.
_PUBLISHED = (
    GadreTask("agi_eval_lsat_ar", _SYMBOLIC, 3, 230, 0.25),
    GadreTask("agi_eval_lsat_rc", _READING, 3, 268, 0.25),
    GadreTask("agi_eval_lsat_lr", _READING, 3, 510, 0.25),
    GadreTask("agi_eval_sat_en", _READING, 3, 206, 0.25),
    GadreTask("arc_easy", _WORLD, 10, 2376, 0.25, _ANSWER, in_17=True),
    GadreTask("arc_challenge", _WORLD, 10, 1172, 0.25, _ANSWER),
    GadreTask("bbq", _SAFETY, 3, 58492, 0.5, by_category=True),
    GadreTask("bigbench_conceptual_combinations", _LANGUAGE, 10, 103, 0.25),
    GadreTask("bigbench_conlang_translation", _LANGUAGE, 0, 164, 0.0),
    GadreTask("bigbench_cs_algorithms", _SYMBOLIC, 10, 1320, 0.0, in_17=True),
    GadreTask("bigbench_dyck_languages", _SYMBOLIC, 10, 1000, 0.0, in_17=True),
    GadreTask("bigbench_elementary_math_qa", _SYMBOLIC, 10, 38160, 0.25),
    GadreTask("bigbench_misconceptions", _WORLD, 10, 219, 0.5),
    GadreTask("bigbench_language_identification", _LANGUAGE, 10, 10000, 0.25),
    GadreTask("bigbench_logical_deduction", _SYMBOLIC, 10, 1500, 0.25),
    GadreTask("bigbench_novel_concepts", _COMMONSENSE, 10, 32, 0.25, in_17=True),
    GadreTask("bigbench_operators", _SYMBOLIC, 10, 210, 0.0, in_17=True),
    GadreTask("bigbench_repeat_copy_logic", _SYMBOLIC, 10, 32, 0.0),
    GadreTask("bigbench_qa_wikidata", _WORLD, 10, 20321, 0.0, in_17=True),
    GadreTask("bigbench_strange_stories", _COMMONSENSE, 10, 174, 0.5),
    GadreTask("bigbench_strategy_qa", _COMMONSENSE, 10, 2289, 0.5),
    GadreTask("bigbench_understanding_fables", _READING, 10, 189, 0.25),
    GadreTask("boolq", _READING, 10, 3270, 0.5, _ANSWER, in_17=True),
    GadreTask("commonsense_qa", _COMMONSENSE, 10, 1221, 0.25, in_17=True),
    GadreTask("copa", _COMMONSENSE, 0, 100, 0.5, in_17=True),
    GadreTask("coqa", _READING, 0, 7983, 0.0, in_17=True),
    GadreTask("enterprise_pii_classification", _SAFETY, 10, 3395, 0.5),
    GadreTask("hellaswag", _LANGUAGE, 10, 10042, 0.25, in_17=True),
    GadreTask("hellaswag_zeroshot", _LANGUAGE, 0, 10042, 0.25, in_17=True, stem="hellaswag"),
    GadreTask("jeopardy", _WORLD, 10, 2117, 0.0, _ANSWER, by_category=True, stem="jeopardy_all"),
    GadreTask("lambada_openai", _LANGUAGE, 0, 5153, 0.0, in_17=True),
    GadreTask("logi_qa", _SYMBOLIC, 10, 651, 0.25, _ANSWER),
    GadreTask("math_qa", _SYMBOLIC, 10, 2983, 0.25),
    GadreTask("mmlu", _WORLD, 5, 14042, 0.25, _ANSWER, by_category=True),
    GadreTask("mmlu_zeroshot", _WORLD, 0, 14042, 0.25, "Answer: ", by_category=True, stem="mmlu"),
    GadreTask("openbook_qa", _COMMONSENSE, 0, 500, 0.25),
    GadreTask("piqa", _COMMONSENSE, 10, 1838, 0.5, _ANSWER, in_17=True),
    GadreTask("pubmed_qa_labeled", _READING, 10, 1000, 0.0, in_17=True),
    GadreTask("simple_arithmetic_nospaces", _SYMBOLIC, 10, 1000, 0.0),
    GadreTask("simple_arithmetic_withspaces", _SYMBOLIC, 10, 1000, 0.0),
    GadreTask("siqa", _COMMONSENSE, 10, 1954, 0.5),
    GadreTask("squad", _READING, 10, 10570, 0.0, in_17=True),
    GadreTask("winogender_mc_female", _SAFETY, 10, 60, 0.5),
    GadreTask("winogender_mc_male", _SAFETY, 10, 60, 0.5),
    GadreTask("winograd", _LANGUAGE, 0, 273, 0.5, in_17=True, stem="winograd_wsc"),
    GadreTask("winogrande", _LANGUAGE, 0, 1267, 0.5),
)

# The tasks by name, in the order of the publication.
TASKS: dict[str, GadreTask] = {task.name: task for task in _PUBLISHED}
