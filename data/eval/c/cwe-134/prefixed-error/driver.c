#include "driver.h"

void complain(FILE *out, const char *program, const char *what);

int main(int argc, char **argv)
{
    complain(stdout, argv[1], argv[2]);
    return 0;
}
