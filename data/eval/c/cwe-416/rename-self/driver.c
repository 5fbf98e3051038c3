#include "driver.h"

struct person {
    char *name;
};

void rename_person(struct person *person, const char *name);

int main(int argc, char **argv)
{
    struct person person = {exact_string(argv[1])};
    int offset = atoi(argv[2]);
    if (argc > 4)
        fail_allocation(1);
    rename_person(&person, offset < 0 ? argv[3] : person.name + offset);
    puts(person.name ? person.name : "NULL");
    return 0;
}
