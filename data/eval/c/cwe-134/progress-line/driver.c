#include "driver.h"

void show_progress(FILE *out, const char *task, int percent);

int main(int argc, char **argv)
{
    show_progress(stdout, argv[1], atoi(argv[2]));
    return 0;
}
