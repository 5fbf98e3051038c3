#include "driver.h"

void make_badge(char *badge, int id, const char *name);

int main(int argc, char **argv)
{
    char *badge = exact(24);
    make_badge(badge, atoi(argv[1]), argv[2]);
    puts(badge);
    return 0;
}
