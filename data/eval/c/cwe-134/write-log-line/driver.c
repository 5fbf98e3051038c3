#include "driver.h"

void log_line(FILE *log, const char *message);

int main(int argc, char **argv)
{
    log_line(stdout, argv[1]);
    return 0;
}
