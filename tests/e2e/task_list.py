"""Four real tasks for the 1.5B model: what is asked, with which tools, and what a right answer holds."""
from harness import ROOT

HOTELS = str(ROOT / "tests" / "e2e" / "tasks" / "hotels")

TASKS = {
    "product": {
        "task": "What is 48213 times 90817? Use the calculator.",
        "options": ["--tools", "calculator"],
        "answer": [str(48213 * 90817)],
        "calls": 1,
    },
    "bill": {
        "task": "A hotel room costs 129.50 euros per night. I stay 4 nights. A tax of 12 percent is added to the whole sum. "
                "What is the total? Use the calculator.",
        "options": ["--tools", "calculator"],
        "answer": ["580.16"],
        "calls": 1,
    },
    "hotels": {
        "task": "Search for the price per night of Hotel Seaview. Then search for the price per night of Hotel Fjordgard. "
                "Then use the calculator: how much more do three nights in Hotel Seaview cost than three nights in Hotel "
                "Fjordgard?",
        "options": ["--tools", "web_search,calculator", "--docs", HOTELS],
        "answer": ["39"],
        "calls": 3,
    },
    "program": {
        "task": "First write a Python program that prints the 20th Fibonacci number and run it with code_run. Then multiply the "
                "printed number by 12.5 with the calculator. What is the product?",
        "options": ["--tools", "code_run,calculator"],
        "answer": ["84562.5"],
        "calls": 2,
    },
}
