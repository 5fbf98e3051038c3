#include <stdlib.h>
#include <string.h>

struct person {
    char *name;         /* allocated */
};

/* Gives a person a copy of a new name; the old one is freed. Without memory the old name stays. */
void rename_person(struct person *person, const char *name)
{
