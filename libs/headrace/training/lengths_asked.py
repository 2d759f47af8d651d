"""Prompts of this project's own for the length predictor: everyday requests whose answers run from a word to pages.

The other free sources hold few short answers, little code and no requested lengths; these do.
"""

from itertools import product
from random import Random

_THINGS = (
    *("the tides", "photosynthesis", "a water mill", "the printing press", "volcanoes", "honey bees", "inflation"),
    *("the violin", "coral reefs", "a suspension bridge", "the Roman aqueducts", "black holes", "sourdough bread"),
    *("vaccines", "the Silk Road", "electric motors", "glaciers", "chess", "the water cycle", "solar panels", "coffee"),
    *("lighthouses", "the French Revolution", "magnetism", "public libraries", "earthquakes", "bicycles", "jazz"),
    *("the human heart", "desert foxes", "compound interest", "steel", "monsoons", "the abacus", "wind turbines"),
    *("machine learning", "recycling", "tea", "the moon landing", "penguins", "poetry", "antibiotics", "origami"),
)
_TASKS = (
    *("reverses a string", "checks whether a number is prime", "sorts a list of words by length"),
    *("counts the vowels in a text", "merges two sorted arrays", "reads a CSV file and prints its columns"),
    *("finds the largest number in a list", "removes duplicates from a list", "converts Celsius to Fahrenheit"),
    *("computes the factorial of a number", "validates an email address", "counts words in a file"),
    *("prints the first n Fibonacci numbers", "finds the shortest path in a grid", "parses a date"),
    *("implements a stack with push and pop", "calculates the median of a list", "flattens a nested list"),
)
_LANGUAGES = ("Python", "JavaScript", "Java", "C++", "Go", "Rust", "Ruby", "a shell script")
_PLACES = (
    *("France", "Japan", "Brazil", "Kenya", "Canada", "Norway", "Egypt", "Peru", "India", "Portugal", "Vietnam"),
    *("Greece", "Mexico", "Morocco", "Iceland", "Turkey"),
)
_SENTENCES = (
    *("The train leaves at seven and arrives before noon.", "She has never seen such a bright star."),
    *("We will meet you at the old bridge tomorrow.", "The soup was cold but the bread was warm."),
    *("He forgot his keys on the kitchen table.", "My sister plays the piano every evening."),
    *("The company lost two customers last year.", "Please close the window before you leave."),
)
_PASSAGES = (
    "The village sits on a narrow ridge between two rivers. For centuries its mills ground the grain of the whole "
    "valley, until the railway came and the flour was made in the city. Today three of the mills still turn, two for "
    "visitors and one for a baker who claims that slow stones make better bread.",
    "A team measured how often delivery robots stop on crowded pavements. Robots that slowed down early stopped half "
    "as often as those that kept their speed and braked late, and people walking near them rated them as more polite. "
    "The cost was a delay of eleven seconds on a trip of ten minutes.",
    "Our shop opens at nine on weekdays and at ten on Saturdays. Orders that come in before noon are sent the same "
    "day. Returns are free within thirty days if the box is unopened; after that we charge five euros. Gift cards "
    "never end.",
)
_OPINIONS = (
    *("I love this phone, the battery lasts two days.", "The room was dirty and the staff was rude."),
    *("It works, nothing special.", "Worst purchase of my life.", "The film was a pleasant surprise."),
    *("Shipping took a month, but the chair is fine.",),
)
_ROLES = ("a ship's captain", "a museum guide", "a detective", "a chef", "a teacher", "a robot on Mars", "a gardener")

# (how it is worded, what fills {} and {1}); every combination is a prompt.
_PATTERNS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("What is the capital of {}?", _PLACES, ()),
    ("In one word: on which continent is {}?", _PLACES, ()),
    ("Is {} larger than Germany? Answer yes or no.", _PLACES, ()),
    ("Which language do most people in {} speak?", _PLACES, ()),
    ("Name {} rivers.", ("two", "three", "five", "ten"), ()),
    ("Give me {} interesting facts about {1}.", ("three", "five", "ten"), _THINGS),
    ("List {} books about {1}.", ("three", "five"), _THINGS[::3]),
    ("Explain {} in one sentence.", _THINGS, ()),
    ("Explain {} to a child.", _THINGS, ()),
    ("Explain {} in detail, with examples.", _THINGS, ()),
    ("What is {}?", _THINGS, ()),
    ("Why does {} matter?", _THINGS, ()),
    ("Describe {} in exactly {1} words.", _THINGS[::2], ("10", "25", "50", "100")),
    ("Write a {1}-word essay on {}.", _THINGS[1::2], ("100", "200", "300", "500")),
    ("Write a haiku about {}.", _THINGS[::2], ()),
    ("Write a poem about {} with four verses.", _THINGS[1::3], ()),
    ("Write a short story about {}.", _THINGS[::3], ()),
    ("Write a long and detailed article about the history of {}.", _THINGS[::2], ()),
    ("Write one paragraph about {}.", _THINGS[1::2], ()),
    ("Write a title for a talk about {}. Only the title.", _THINGS[::2], ()),
    ("Compare {} and {1}.", _THINGS[:8], _THINGS[20:26]),
    ("Write a function in {1} that {}.", _TASKS, _LANGUAGES[:7]),
    ("Write {1} that {}.", _TASKS[::2], _LANGUAGES[7:]),
    ("How do I write code in {1} that {}? Explain step by step.", _TASKS[::3], _LANGUAGES[:3]),
    ("Write a SQL query that finds the {} customers with the most orders.", ("3", "10", "100"), ()),
    ("Write a regular expression that matches {}.", ("a year", "a phone number", "a hex colour", "a URL"), ()),
    ("Which built-in function of {1} {}? Answer with its name only.", _TASKS[2:10:3], _LANGUAGES[:4]),
    ("Translate into {1}: {}", _SENTENCES, ("French", "Spanish", "German")),
    ("Rewrite in a formal tone: {}", _SENTENCES, ()),
    ("Correct the grammar: {}", ("she go to school yesterday", "their is two apple", "me and him was late"), ()),
    ("Is this review positive, negative or neutral? {}", _OPINIONS, ()),
    ("Reply politely to this review: {}", _OPINIONS, ()),
    ("Summarize in one sentence:\n{}", _PASSAGES, ()),
    ("Summarize in three bullet points:\n{}", _PASSAGES, ()),
    ("{}\n\nWhat does the text say about cost? Answer briefly.", _PASSAGES, ()),
    ("You are {}. Introduce yourself in two sentences.", _ROLES, ()),
    ("You are {}. Tell me about {1}.", _ROLES, _THINGS[::5]),
    ("Imagine you are {} who has lost everything. Write a letter home.", _ROLES, ()),
    ("Write an email to {} to ask for {1}.", ("my landlord", "my boss"), ("a refund", "a day off", "help")),
    ("How do I {}? Give me numbered steps.", ("change a tyre", "bake bread", "plant a tree", "learn to swim"), ()),
    ("Make a table of {1} with the columns name, year and place.", ("",), ("five inventions", "six painters")),
    ("Complete the sentence: the old lighthouse {}", ("was", "stood", "had never", "looked over"), ()),
)  # fmt: skip
_ARITHMETIC = ("What is {} plus {}?", "{} times {}?", "Calculate {} minus {} and show your work.", "Is {} + {} even?")


def own_prompts(count: int, seed: int) -> list[str]:
    """So many different prompts, every pattern as often as its fillings allow, in random order."""
    rng = Random(seed)
    waiting = [_filled(*pattern, rng) for pattern in _PATTERNS]
    waiting.append([text.format(rng.randint(2, 99), rng.randint(2, 99)) for text in _ARITHMETIC for _ in range(12)])
    chosen: dict[str, None] = {}
    while len(chosen) < count and any(waiting):
        for prompts in waiting:
            if prompts and len(chosen) < count:
                chosen[prompts.pop()] = None
    found = list(chosen)
    rng.shuffle(found)
    return found


def _filled(wording: str, first: tuple[str, ...], second: tuple[str, ...], rng: Random) -> list[str]:
    wording = wording.replace("{}", "{0}")
    prompts = [wording.format(a, b) for a, b in product(first, second or ("",))]
    rng.shuffle(prompts)
    return prompts
