#include "driver.h"

struct entry {
    const char *label;
    int enabled;
};

void print_menu(const struct entry *entries, int count);

int main(int argc, char **argv)
{
    struct entry entries[8];
    for (int i = 1; i < argc; i++) {
        entries[i - 1].enabled = argv[i][0] != '-';
        entries[i - 1].label = argv[i] + (argv[i][0] == '-');
    }
    print_menu(entries, argc - 1);
    return 0;
}
