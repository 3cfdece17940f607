"""The words of the world, by what they mean, and who does what."""

from __future__ import annotations

MEN = (
    "Tom Jack Peter David Henry Leo Sam Oliver Martin Daniel Felix George"
).split()
WOMEN = (
    "Emma Lucy Kate Sophie Maria Alice Julia Nina Laura Helen Grace Susan"
).split()

# Countable nouns of a class; the plural is regular or in `inflection`.
NOUNS = {
    name: words.split()
    for name, words in {
        "man": "man boy father brother uncle grandfather king waiter farmer",
        "woman": "woman girl mother sister aunt grandmother queen",
        "worker": "teacher doctor nurse baker driver student neighbor singer "
        "painter cook gardener sailor pilot dentist firefighter builder "
        "writer",
        "child": "child baby",
        "pet": "cat dog puppy kitten rabbit parrot",
        "farm": "horse cow sheep goat pig",
        "bird": "bird duck chicken owl eagle",
        "wild": "fox bear wolf lion monkey elephant tiger frog",
        "small_animal": "mouse worm butterfly spider",
        "dish": "sandwich pizza cake omelet salad egg sausage",
        "fruit": "apple banana orange cherry peach strawberry lemon",
        "vegetable": "carrot potato tomato onion pumpkin mushroom pepper",
        "vehicle": "car truck bus taxi van tractor motorcycle",
        "ride": "bicycle",
        "boat": "boat ship ferry",
        "clothing": "shirt coat hat scarf jacket dress sweater glove shoe boot",
        "furniture": "table chair sofa bed desk shelf lamp bench",
        "instrument": "guitar piano violin drum trumpet",
        "toy": "ball doll kite puzzle robot balloon",
        "device": "phone computer camera radio television clock",
        "tool": "hammer saw brush shovel rope ladder bucket knife",
        "text": "book letter newspaper poem story map ticket dictionary",
        "picture": "picture photo drawing poster",
        "plant": "tree rose bush tulip",
        "container": "box bag basket bottle cup glass bowl suitcase backpack",
        "building": "house hotel church castle tower bridge",
        "opening": "door window drawer",
        "event": "party concert wedding meeting lesson festival trip movie "
        "game",
        "idea": "question answer problem plan joke secret lie idea",
        "gift": "present gift ring necklace watch medal prize",
    }.items()
}

# Nouns without a plural: they take "the", "some" or nothing.
MASS = {
    name: words.split()
    for name, words in {
        "food": "bread cheese rice soup pasta fish butter honey chocolate jam "
        "popcorn",
        "drink": "water milk coffee juice lemonade cocoa beer",
        "fodder": "grass corn",
        "material": "wood gold silver paper wool leather plastic glass",
        "subject": "history music science English French biology geography",
        "sport": "football tennis basketball chess hockey golf volleyball",
        "nature": "snow rain sand mud ice smoke dust",
    }.items()
}

GROUPS = {
    "person": "man woman worker child",
    "adult": "man woman worker",
    "animal": "pet farm bird wild",
    "edible": "dish fruit vegetable",
    "thing": "clothing furniture toy device tool text container gift picture",
    "portable": "clothing toy text container gift tool",
    "transport": "vehicle boat ride",
}


ADJECTIVES = {
    name: words.split()
    for name, words in {
        "person": "tall young old kind friendly clever quiet funny busy tired "
        "hungry polite famous strong lazy brave shy rich thin careful",
        "animal": "big small hungry wild gray brown black white clever lazy "
        "noisy young fat gentle thirsty",
        "edible": "fresh small big delicious frozen cheap",
        "food": "fresh warm cold delicious tasty salty",
        "drink": "cold hot warm sweet",
        "fruit": "ripe sweet sour",
        "transport": "fast slow new old expensive red blue yellow broken empty",
        "clothing": "red blue green yellow warm clean dirty new old wet dry "
        "purple",
        "furniture": "wooden heavy old comfortable round modern ugly",
        "instrument": "old expensive golden loud beautiful",
        "toy": "colorful little new broken plastic",
        "device": "modern broken cheap expensive tiny old",
        "tool": "sharp useful heavy long",
        "text": "long short boring interesting famous secret",
        "picture": "beautiful strange large famous",
        "plant": "tall green pretty wild dead",
        "container": "empty full heavy large square",
        "building": "huge tall famous white abandoned",
        "opening": "wide narrow open closed wooden",
        "event": "long wonderful boring exciting important noisy",
        "idea": "difficult simple silly clever important strange",
        "gift": "expensive lovely small golden",
        "child": "little small young happy sleepy noisy",
        "material": "soft hard cheap thin",
        "nature": "white deep cold thick",
    }.items()
}
ADJECTIVES |= {
    name: ADJECTIVES[group]
    for group in GROUPS
    if group in ADJECTIVES
    for name in GROUPS[group].split()
    if name not in ADJECTIVES
}
ADJECTIVES["thing"] = "heavy light new old cheap nice".split()

# Where things happen. A place comes with its preposition.
PLACES = {
    name: [p.strip() for p in places.split(",")]
    for name, places in {
        "home": "in the kitchen, in the bedroom, in the living room, in the "
        "bathroom, on the balcony, in the cellar, at home, in the garage, "
        "upstairs, in the dining room, in the attic",
        "town": "at the market, in the city, at the station, in the park, at "
        "the library, in the museum, near the church, in the office, at "
        "school, on the corner, behind the bank, at the airport, in the "
        "village, downtown, across the street, next to the bakery, at the "
        "hospital, outside the theater",
        "nature": "in the forest, by the river, on the beach, near the lake, "
        "in the mountains, under a tree, in the field, on the hill, in the "
        "garden, on the island, in the valley, along the coast",
        "farm": "on the farm, behind the barn, in the stable, by the fence, "
        "in the meadow",
        "water": "in the pond, in the lake, in the river, in the ocean",
        "air": "over the roof, above the clouds, over the trees, across the "
        "sky",
        "top": "on the table, on the shelf, on the floor, under the bed, in "
        "the drawer, next to the lamp, beside the door, behind the sofa",
        "restaurant": "at the restaurant, in the cafe, at the hotel",
        "stage": "on the stage, at the concert, in the theater, at the party",
        "pitch": "in the stadium, on the playground, at the club",
    }.items()
}
GOALS = (
    "to the market,to the beach,to the museum,to school,to the hospital,"
    "to the library,to the station,home,to the village,to the supermarket,"
    "to the airport,to the forest,to the zoo,to the swimming pool,"
    "to the cinema,into the kitchen,into the garden"
).split(",")

PAST_TIMES = (
    "yesterday,last night,last week,on Monday,three days ago,last summer,"
    "this morning,an hour ago,many years ago,last Sunday,on Friday evening,"
    "in the afternoon,two weeks ago,at midnight,last winter"
).split(",")
FUTURE_TIMES = (
    "tomorrow,next week,tonight,on Tuesday,in an hour,soon,next month,"
    "next summer,tomorrow morning,on Saturday,after lunch,in ten minutes,"
    "before dinner,next year"
).split(",")
HABIT_TIMES = (
    "every day,in the morning,at night,on Thursdays,every weekend,in winter,"
    "twice a week,once a month,in spring,in the evening,after breakfast,"
    "all day long,in autumn,every Wednesday"
).split(",")
NOW_TIMES = ["now", "right now", "at the moment", "today", "again", "still"]
FREQUENCY = "always often usually sometimes never rarely".split()
MANNER = (
    "quickly slowly quietly carefully happily loudly together alone "
    "suddenly gently proudly easily"
).split()

NUMBERS = "two three four five six seven nine ten eleven twelve twenty".split()
BIG_NUMBERS = (
    "fifteen,thirty,forty five,fifty,sixty,eighty,ninety,a hundred,"
    "twenty seven,thirty six,a thousand,seventeen,thirteen"
).split(",")


# Who does what to what, and where. Classes are joined by "+"; "-" is none.
FRAMES = [
    line.split()
    for line in """
    person eat edible+food home+restaurant
    adult cook food+vegetable home+restaurant
    adult bake dish.cake home
    person drink drink home+restaurant
    pet eat food.fish+food.cheese home
    farm eat fodder farm
    bird eat small_animal.worm+fodder.corn nature
    wild chase small_animal+wild nature
    pet chase small_animal+pet home+nature
    pet chase toy.ball nature
    adult drive vehicle town
    person ride ride+farm.horse town+nature
    worker sail boat water
    adult repair transport+device+furniture home+town
    person wash clothing+vehicle+container home
    person wear clothing+gift.ring town+stage
    adult buy thing+edible+food+transport town
    adult sell transport+clothing+building+picture town
    person carry portable+furniture home+town
    person find portable+gift+pet home+nature+top
    person lose gift+text+clothing town+nature
    person hide gift+text+toy home+top
    person open opening+container home
    person close opening+container home
    person clean furniture+opening+vehicle home
    person play instrument home+stage
    person play sport pitch+nature
    person watch event.movie+event.game+device.television home
    person enjoy event+food+drink town
    person visit building+person town
    person help person town+home
    person meet person town+restaurant
    person call person home
    person see person+animal+building town+nature
    person feed animal farm+nature
    person catch small_animal+wild.frog nature
    person paint picture+building+opening home
    person draw picture+animal+plant.tree home
    person write text+text.letter home
    adult study subject town
    worker teach subject+sport town
    worker build building+furniture+boat town
    person break device+container+opening home
    person plant plant+vegetable nature
    person water plant home+nature
    person cut plant+material.paper home
    person pick fruit+plant.rose nature
    person take picture.photo town+nature
    adult steal gift+transport+picture town
    person forget text+container+idea home
    person understand idea+subject -
    adult explain idea+subject town
    person solve idea.problem+toy.puzzle home
    adult plan event home
    person move furniture+container home
    adult borrow text+tool+ride -
    person throw toy.ball nature
    person choose gift+clothing+toy town
    person hold tool+child+container town
    child drop toy+container+edible home+top
    child love pet+toy+dish -
    person need tool+clothing+device+food -
    person like animal+food+sport+fruit -
    person prefer drink+sport+subject+food -
    person hear bird+instrument+person nature+home
    person follow person+animal nature+town
    wild scare person+farm nature
    """.strip().splitlines()
]
INTRANSITIVE = [
    line.split()
    for line in """
    person sleep home
    animal sleep farm+nature
    person swim water
    bird swim water
    bird fly air
    person dance stage+home
    person sing stage+home
    person laugh town+home
    child cry home+town
    person work town+home
    person wait town
    person run town+nature
    animal run nature+farm
    person walk town+nature
    person sit home+nature
    person live town
    pet play home+nature
    child play nature+home
    person travel nature
    person rest home+nature
    person smile town+home
    vehicle stop town
    person talk town+home
    animal hide nature
    wild live nature
    plant grow nature
    pet jump home+nature
    child jump nature+pitch
    person relax nature+home
    bird sing nature
    person arrive town
    person hurry town
    boat sail water
    """.strip().splitlines()
]
DITRANSITIVE = [
    line.split()
    for line in """
    person give gift+text+fruit+toy
    person show picture+text+gift+building
    person send text+gift+picture
    person offer dish+drink+fruit
    person lend tool+text+vehicle
    person bring drink+dish+clothing
    person tell idea+text.story
    """.strip().splitlines()
]


def members(expression: str) -> list[tuple[str, str]]:
    """Return the (class, noun) pairs that a class expression means.

    Example
    -------
    >>> members("dish.cake+drink")[:2]
    [('dish', 'cake'), ('drink', 'water')]
    """
    found = []
    for term in expression.split("+"):
        name, _, noun = term.partition(".")
        for part in GROUPS.get(name, name).split():
            words = NOUNS.get(part) or MASS.get(part)
            if words is None:  # a noun by itself
                owner = next(c for c, w in NOUNS.items() if part in w)
                found.append((owner, part))
            else:
                found += [(part, w) for w in words if noun in ("", w)]
    return found
