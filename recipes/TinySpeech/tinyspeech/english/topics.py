"""What stories are about."""

from __future__ import annotations

from random import Random

from ..stories import Story, Topic, tell
from . import lexicon as lex
from .inflection import finish

TOPICS = {
    "cooking": Topic(
        {
            "dish": "soup,pasta,rice,omelet,salad",
            "food": "onions,tomatoes,eggs",
        },
        (
            "{hero} wanted to cook [a big dinner|dinner] for {friend}.",
            "[First|In the kitchen], {he} [cut|washed] the {food} and "
            "[looked for|found] some [pepper|butter|cheese].",
            "[Then|After that], {he} [made|cooked] {dish} in [a large|an old] "
            "pot.",
        ),
        (
            (
                "{he} [forgot the pot|talked on the phone], and [all|all of] "
                "the {dish} burned.",
                "[{hero} threw the {dish} away|They had to throw the {dish} "
                "away] and ordered a pizza.",
            ),
            (
                "{friend} [tasted|tried] the {dish} and [smiled|was very "
                "happy].",
                "[{friend} asked for more {dish}|They ate all of the {dish} "
                "together].",
            ),
        ),
    ),
    "beach": Topic(
        {"toy": "ball,kite,boat", "drink": "lemonade,juice,cold water"},
        (
            "[Last summer|On Sunday], {hero} went to the beach with {friend}.",
            "They [took|packed] a {toy}, two towels, and some {drink}.",
            "[On the sand|There], they [built a castle|played with the {toy}]"
            " [for hours|all morning].",
        ),
        (
            (
                "[Suddenly|Then], dark clouds came and it [started|began] to "
                "rain.",
                "[They|{hero} and {friend}] [ran home|hurried home] [wet and "
                "cold|in wet clothes].",
            ),
            (
                "[The sun was hot|It was very hot], and the ocean was "
                "[warm|calm].",
                "[They|{hero} and {friend}] swam in the [warm|calm] ocean "
                "until the evening.",
            ),
        ),
    ),
    "birthday": Topic(
        {"gift": "camera,bicycle,guitar,watch,puppy", "age": "seven,nine,ten"},
        (
            "[Yesterday|On Saturday], {hero} was {age} years old.",
            "{friend} [came to the party|visited {him}] with a [big|small] "
            "present.",
            "{hero} [opened|unpacked] it [quickly|slowly] and found a {gift}.",
        ),
        (
            (
                "{he} [always wanted|had dreamed of] a {gift}.",
                "{hero} [thanked {friend} and smiled|was so happy that {he} "
                "danced].",
            ),
            (
                "But {he} already had a [better|new] {gift}.",
                "{hero} [took|brought] the {gift} back to the shop.",
            ),
        ),
    ),
    "school": Topic(
        {"subject": "history,English,French,science,biology"},
        (
            "{hero} had [an important|a difficult] {subject} test [on Monday|"
            "at school].",
            "{he} [asked {friend} for|needed] the [book|dictionary].",
            "[The day before|In the evening], {friend} [called|visited] {him}.",
        ),
        (
            (
                "{hero} [studied|learned] with {friend} [until midnight|all "
                "night].",
                "[The teacher said that|In the end,] {hero} [knew every "
                "answer|had the best test].",
            ),
            (
                "{hero} [watched television|played games] with {friend} and "
                "didn't study.",
                "[The teacher said that|In the end,] {hero} [failed the test|"
                "had the worst test].",
            ),
        ),
    ),
    "garden": Topic(
        {"plant": "tomatoes,roses,pumpkins,tulips,carrots,strawberries"},
        (
            "In spring, {hero} [planted|wanted to grow] {plant} in the garden.",
            "{friend} [lent|gave] {him} [a shovel|a new shovel|some tools].",
            "[Soon|After two weeks], [small|little] green leaves [came up|"
            "grew] [in the sun|behind the house].",
        ),
        (
            (
                "{hero} watered the {plant} [every day|every evening].",
                "[In summer|In the end], the {plant} were [big and beautiful|"
                "tall and healthy].",
            ),
            (
                "{hero} [went away|traveled] for a month and nobody watered "
                "the {plant}.",
                "[In summer|In the end], the {plant} were [dry and dead|all "
                "dead].",
            ),
        ),
    ),
    "travel": Topic(
        {"city": "London,Paris,Rome,Berlin", "way": "train,bus,ship"},
        (
            "{hero} [planned a trip|wanted to travel] to {city} with {friend}.",
            "They [bought|booked] [tickets|two tickets] for the {way}.",
            "[In the morning|Before breakfast], {hero} packed a [heavy|big] "
            "suitcase.",
        ),
        (
            (
                "[They woke up late|The taxi was too slow], and the {way} left "
                "without them.",
                "[They|{hero} and {friend}] [stayed at home|went back home] "
                "and didn't see {city}.",
            ),
            (
                "[They arrived early|The taxi was fast], and they found "
                "[good|nice] seats.",
                "[In the evening|The next day], they walked through {city} and "
                "took many photos.",
            ),
        ),
    ),
    "illness": Topic(
        {"pain": "a fever,a headache,a bad cold", "drink": "soup,milk,water"},
        (
            "{hero} felt [sick|very sick] [yesterday|on Monday morning].",
            "{he} had {pain} and stayed in bed.",
            "{friend} [brought|gave] {him} [warm|hot] {drink} and [called|"
            "asked] the doctor.",
        ),
        (
            (
                "{hero} took the medicine and slept [well|all day].",
                "[The next day|Two days later], {hero} was healthy again and "
                "went to work.",
            ),
            (
                "{hero} [did not take|threw away] the medicine and went "
                "dancing.",
                "[The next day|Two days later], {hero} was [even sicker|"
                "brought to the hospital].",
            ),
        ),
    ),
    "football": Topic(
        {"place": "stadium,playground,park,club"},
        (
            "{hero} [plays|played] football [at|near] the {place}.",
            "On Sunday, {his} team had an important game.",
            "{friend} [came to watch|watched] the game with [many|some] "
            "friends.",
        ),
        (
            (
                "{hero} [kicked|shot] three goals [before the end|in ten "
                "minutes].",
                "{his} team won the game and [held up the cup|celebrated].",
            ),
            (
                "{hero} [fell|slipped] and [missed|lost] [every|the] ball.",
                "{his} team lost the game and [walked home sadly|was "
                "disappointed].",
            ),
        ),
    ),
    "dog": Topic(
        {"pet": "dog,puppy,cat,kitten", "place": "forest,park,village"},
        (
            "{hero} has a [small|little|brown|white] {pet}.",
            "[One day|Last week], the {pet} ran away [into|to] the {place}.",
            "{hero} and {friend} [looked for|called] the {pet} [for hours|"
            "everywhere].",
        ),
        (
            (
                "[At last|Suddenly], they heard the {pet} [behind a tree|under"
                " a bench].",
                "{hero} [carried|took] the {pet} home and gave it some food.",
            ),
            (
                "It was [dark|midnight], and the {pet} was nowhere.",
                "{hero} cried because the {pet} was still lost.",
            ),
        ),
    ),
    "thief": Topic(
        {"gift": "ring,necklace,painting,watch,medal"},
        (
            "[A thief|One night, a thief] came to the house of {hero}.",
            "He [opened|broke] a window and took the [golden|expensive] "
            "{gift}.",
            "{friend} [saw|heard] him and called the police.",
        ),
        (
            (
                "The police [followed|chased] the thief and caught him.",
                "{hero} [got|was happy to get] the {gift} back.",
            ),
            (
                "The police [arrived|came] too late and the thief was gone.",
                "{hero} never saw the {gift} again.",
            ),
        ),
    ),
    "music": Topic(
        {"tool": "guitar,piano,violin,trumpet,drum"},
        (
            "{hero} [plays|learns to play] the {tool}.",
            "{friend} [asked|invited] {him} to play at a [concert|wedding].",
            "{hero} was [nervous|very nervous] [before|because of] the "
            "[concert|music].",
        ),
        (
            (
                "{he} practiced [every evening|for many hours].",
                "{his} music was beautiful and [the people|everybody] "
                "[cheered|clapped].",
            ),
            (
                "{he} did not practice [at all|and went out].",
                "{his} music was terrible and [the people|everybody] [left|"
                "laughed].",
            ),
        ),
    ),
    "car": Topic(
        {"car": "car,van,truck,tractor,motorcycle"},
        (
            "{hero} [drove|rode] an old {car} [to work|to the city].",
            "On the [road|bridge], the {car} [stopped|made a loud noise].",
            "{hero} called {friend}, who repairs [cars|machines].",
        ),
        (
            (
                "{friend} [came|arrived] with [tools|a toolbox] and repaired "
                "the {car}.",
                "{hero} thanked {friend} and drove on.",
            ),
            (
                "{friend} said that nobody could repair the {car}.",
                "{hero} sold the {car} and bought a new one.",
            ),
        ),
    ),
    "winter": Topic(
        {"thing": "gloves,boots,scarf,coat", "place": "hill,lake,mountain"},
        (
            "[It snowed|There was snow] [all night|in the valley].",
            "{hero} [went outside|walked to the {place}] with {friend}.",
            "They [made|built] a snowman [near the {place}|in the snow].",
        ),
        (
            (
                "{hero} had forgotten the {thing} and [was freezing|was very "
                "cold].",
                "They went [inside|home] and drank hot [cocoa|milk] by the "
                "fire.",
            ),
            (
                "The sun [came out|was warm] and the snow [melted|was soft].",
                "[In the evening|Soon], the snowman was [only|just] water.",
            ),
        ),
    ),
    "picnic": Topic(
        {"food": "sandwiches,cakes,cherries", "animal": "duck,goat,cow"},
        (
            "{hero} and {friend} had a picnic [by the lake|in the meadow].",
            "They [brought|packed] {food} in a basket.",
            "[While they talked|Soon], a [hungry|big] {animal} came.",
        ),
        (
            (
                "The {animal} ate [all|most] of the {food}.",
                "{hero} and {friend} went home hungry.",
            ),
            (
                "{friend} [scared|chased] the {animal} away.",
                "{hero} and {friend} enjoyed their {food}.",
            ),
        ),
    ),
    "library": Topic(
        {"book": "novel,dictionary,newspaper"},
        (
            "{hero} borrowed a {book} from the library.",
            "{he} [read|studied] it [on the bus|in the park] with {friend}.",
            "[Two weeks later|On Friday], {he} had to bring it back.",
        ),
        (
            (
                "But {he} [could not find|had lost] the {book}.",
                "{hero} had to pay for [the {book}|it].",
            ),
            (
                "{he} [found|took] the {book} and went there [early|quickly].",
                "{hero} borrowed [another|a new] {book}.",
            ),
        ),
    ),
    "fishing": Topic(
        {"boat": "boat,ship", "water": "lake,river,ocean"},
        (
            "{hero} [likes|wanted] to fish [with {friend}|in the {water}].",
            "[Early in the morning|Before sunrise], {friend} brought a {boat}.",
            "They [waited|sat] [quietly|for hours] on the {water}.",
        ),
        (
            (
                "[At last|Suddenly], {hero} caught a [huge|big] fish.",
                "They cooked the fish [on the fire|for dinner].",
            ),
            (
                "[Suddenly|Then], water came into the {boat}.",
                "They swam to the land and lost the {boat}.",
            ),
        ),
    ),
}


def story(rng: Random) -> Story:
    """Draw a story with its fitting and unfitting endings."""
    hero, friend = rng.sample(lex.MEN + lex.WOMEN, 2)
    pronouns = (
        ("he", "his", "him") if hero in lex.MEN else ("she", "her", "her")
    )
    people = dict(zip(("he", "his", "him"), pronouns), hero=hero, friend=friend)
    return tell(TOPICS, people, rng, finish)
